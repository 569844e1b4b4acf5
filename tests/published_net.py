"""The recorded network once more, in plain NumPy with gradients by hand.

`record` trains it as the published code does, after the description of the recordings alone, so
that recordings can be made with the multiplier scheme on, or with no energy at all. Arrays are
channels-last and float64; nothing here knows Keras or this package.
"""

import numpy as np

EPSILON, KEPT = 1e-5, 0.9


def run_back(way, gradient):
    """Go a way back, newest first, from the gradient of its output."""
    for step in reversed(way):
        gradient = step(gradient)
    return gradient


class Net:
    """Weights by recorded name, their gradients, and the way back through the latest pass."""

    def __init__(self, weights):
        self.weights = weights
        self.gradients = {}
        self.way_back = []

    def conv(self, name, x, stride=1):
        """3x3, one pixel of zeros on every side."""
        kernel = self.weights[f"{name}.weight"]
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        rows, columns = (-(-side // stride) for side in x.shape[1:3])
        last = [stride * (side - 1) + 1 for side in (rows, columns)]
        taps = [
            (i, j, np.s_[:, i : i + last[0] : stride, j : j + last[1] : stride])
            for i in range(3)
            for j in range(3)
        ]

        def back(gradient):
            inward, own = np.zeros_like(padded), np.empty_like(kernel)
            for i, j, at in taps:
                own[i, j] = np.tensordot(padded[at], gradient, ([0, 1, 2], [0, 1, 2]))
                inward[at] += gradient @ kernel[i, j].T
            self.gradients[f"{name}.weight"] = own
            return inward[:, 1:-1, 1:-1]

        self.way_back.append(back)
        return sum(padded[at] @ kernel[i, j] for i, j, at in taps)

    def norm(self, name, x):
        """Batch norm by the biased variance; the running one is unbiased, as in PyTorch."""
        gamma, axes = self.weights[f"{name}.weight"], (0, 1, 2)
        mean, variance = x.mean(axes), x.var(axes)
        count = x.size // x.shape[-1]
        for kind, now in (("mean", mean), ("var", variance * count / (count - 1))):
            key = f"{name}.running_{kind}"
            self.weights[key] = KEPT * self.weights[key] + (1 - KEPT) * now
        scale = 1 / np.sqrt(variance + EPSILON)
        normal = (x - mean) * scale

        def back(gradient):
            self.gradients[f"{name}.weight"] = (gradient * normal).sum(axes)
            self.gradients[f"{name}.bias"] = gradient.sum(axes)
            centred = gradient - gradient.mean(axes) - normal * (gradient * normal).mean(axes)
            return gamma * scale * centred

        self.way_back.append(back)
        return gamma * normal + self.weights[f"{name}.bias"]

    def relu(self, x):
        """Positive part."""
        self.way_back.append(lambda gradient: gradient * (x > 0))
        return np.maximum(x, 0)

    def halve(self, x):
        """Average pool of window and stride half the side: two by two pixels are left."""
        batch, side, _, channels = x.shape
        window = side // 2
        self.way_back.append(
            lambda gradient: gradient.repeat(window, 1).repeat(window, 2) / window**2
        )
        return x.reshape(batch, 2, window, 2, window, channels).mean((2, 4))

    def dense(self, name, x):
        """Flatten in the order (channel, row, column), then a dense layer."""
        kernel = self.weights[f"{name}.weight"]
        channels_first = x.transpose(0, 3, 1, 2)
        flat = channels_first.reshape(len(x), -1)

        def back(gradient):
            self.gradients[f"{name}.weight"] = flat.T @ gradient
            self.gradients[f"{name}.bias"] = gradient.sum(0)
            return (gradient @ kernel.T).reshape(channels_first.shape).transpose(0, 2, 3, 1)

        self.way_back.append(back)
        return flat @ kernel + self.weights[f"{name}.bias"]

    def block(self, name, x, energy_weight):
        """A basic block; the weight of its energy is asked for on the way back."""
        if f"{name}.encoder.0.weight" in self.weights:
            x = self.relu(self.norm(f"{name}.encoder.1", self.conv(f"{name}.encoder.0", x)))
        inner, outer = self.weights[f"{name}.residual.0.weight"].shape[2:]
        stride = 1 if inner == outer else 2
        before, self.way_back = self.way_back, []
        r = self.relu(self.norm(f"{name}.residual.1", self.conv(f"{name}.residual.0", x, stride)))
        r = self.norm(f"{name}.residual.4", self.conv(f"{name}.residual.3", r))
        branch, self.way_back = self.way_back, before
        total = r + np.pad(x[:, ::stride, ::stride], ((0, 0),) * 3 + ((0, outer - inner),))

        def back(gradient):
            gradient = gradient * (total > 0)
            inward = run_back(branch, gradient + energy_weight() * 2 * r / r.size)
            inward[:, ::stride, ::stride] += gradient[..., :inner]
            return inward

        self.way_back.append(back)
        return np.maximum(total, 0)

    def head(self, x):
        """The head `1CNN`."""
        x = self.halve(self.relu(self.conv("classifier.0", x)))
        return self.dense("classifier.5", self.norm("classifier.3", x))


def smoothed_loss(logits, labels, smoothing):
    """Give the mean smoothed cross-entropy and its gradient."""
    batch, classes = logits.shape
    targets = (1 - smoothing) * np.eye(classes)[labels] + smoothing / classes
    shifted = logits - logits.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return -(targets * log_p).sum() / batch, (np.exp(log_p) - targets) / batch


def record(recording, **settings):
    """Train from the initial weights of a recording, and give a recording of that.

    Args:
        recording: dict of arrays, as in `golden/README.md`.
        **settings: what differs from the recording: `uza`, `tra`, `h`, `s`, `lambda0`.
    """
    made = {name: array for name, array in recording.items() if not name.startswith("final/")}
    made.update({name: np.asarray(value) for name, value in settings.items()})
    lr, momentum, smoothing = (float(made[n]) for n in ("lr", "momentum", "label_smoothing"))
    sizes, nets, losses = np.diff(made["cuts"]), [], []
    for k in range(len(sizes)):
        start = f"init/{k}/"
        nets.append(Net({n.removeprefix(start): a for n, a in made.items() if n.startswith(start)}))
    multipliers = [float(made["lambda0"])] * len(sizes)
    velocities = [{} for _ in nets]
    for i, (x, y) in enumerate(zip(made["x"], made["y"], strict=True), start=1):
        losses.append([])
        for k, net in enumerate(nets):
            weight = [0.0]
            for block in range(sizes[k]):
                x = net.block(f"blocks.{block}", x, lambda weight=weight: weight[0])
            loss, gradient = smoothed_loss(net.head(x), y, smoothing)
            losses[-1].append(loss)
            if int(made["uza"]):
                if i % int(made["s"]) == 0:
                    multipliers[k] += float(made["h"]) * loss
                weight[0] = 1 / multipliers[k]
            elif int(made["tra"]):
                weight[0] = 1 / (2 * float(made["taus"][k]))
            run_back(net.way_back, gradient)
            net.way_back = []
            for name, slope in net.gradients.items():
                velocities[k][name] = momentum * velocities[k].get(name, 0.0) + slope
                net.weights[name] = net.weights[name] - lr * velocities[k][name]
    made["losses"] = np.array(losses)
    for k, net in enumerate(nets):
        made.update({f"final/{k}/{name}": array for name, array in net.weights.items()})
    return made
