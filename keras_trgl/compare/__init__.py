"""Compare: any methods on one network, one data set and one recipe, by one command.

May import all rooms below it. It trains by `GreedyModel.fit` alone, keeps a file of every training,
and chooses on held-out training images; test images are read by a method's last trainings, when all
choices stand.
"""
