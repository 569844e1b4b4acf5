"""Expected speed-up of K stages on K devices over one device, by an event simulation.

`python benchmarks/stage_parallel/simulate.py` prints a table, draws `docs/stage_parallel.png`, and
with `--json` writes `simulation.json` beside this script. Times are in units of a stage's forward
pass on one batch; backward takes twice that. A transfer hands a batch's features to the next device
and takes a share of an average stage's time; links work beside the devices. Not in it: the time
to divide a batch into small ones, kernels that are slower on those, and optimizers.
"""

import json
import pathlib

import matplotlib
from absl import app, flags

matplotlib.use("Agg")
from matplotlib import pyplot as plt

FLAGS = flags.FLAGS
flags.DEFINE_bool("json", False, "Print one JSON object on the last line, and write it to a file.")
flags.DEFINE_integer("batches", 128, "Batches of an epoch, after which devices are idle.", 1)
flags.DEFINE_string("results", "", "File for the JSON; the default is beside this script.")
flags.DEFINE_string("picture", "", "File for the picture; the default is in docs/.")

ROOT = pathlib.Path(__file__).parents[2]
FORWARD, BACKWARD = 1.0, 2.0
STAGES = (2, 4, 8, 16)
TRANSFERS = (0.0, 0.05, 0.10)


def even(num_stages):
    """Give the relative times of stages that are alike."""
    return [1.0] * num_stages


def uneven(num_stages):
    """Give relative times of mean 1, the last stage taking half as much again as the others."""
    others = num_stages / (num_stages + 0.5)
    return [others] * (num_stages - 1) + [1.5 * others]


def one_device(costs, batches):
    """Give the time of one device."""
    return batches * sum(costs) * (FORWARD + BACKWARD)


def synchronous(costs, hop, batches):
    """Give the time of local stages, one batch at a time; features are handed on when made.

    Args:
        costs: list of relative times of the stages.
        hop: float. Time of a transfer.
        batches: int.
    """
    end = latest = 0.0
    for cost in costs:
        latest = max(latest, end + (FORWARD + BACKWARD) * cost)
        end += FORWARD * cost + hop
    return batches * latest


def pipelined(costs, hop, batches):
    """Give the time of local stages, each taking the next batch as soon as it is there."""
    arrives = [0.0] * batches
    for cost in costs:
        free = 0.0
        for batch in range(batches):
            start = max(free, arrives[batch])
            arrives[batch] = start + FORWARD * cost + hop
            free = start + (FORWARD + BACKWARD) * cost
    return free


def skewed(costs, hop, batches):
    """Give the time of the skewed step: calls as long as their slowest stage, then a transfer.

    The features of a call are handed on at its end; the last stage has none to hand on.
    """
    total, last = 0.0, len(costs) - 1
    for call in range(batches + last):
        at_work = [k for k in range(len(costs)) if 0 <= call - k < batches]
        total += (FORWARD + BACKWARD) * max(costs[k] for k in at_work)
        if any(k < last for k in at_work):
            total += hop
    return total


def gpipe(costs, hop, micro_batches):
    """Give the time of one batch: all small batches forward, then all backward."""
    share, last = 1.0 / micro_batches, len(costs) - 1
    tasks = [
        [(False, m) for m in range(micro_batches)] + [(True, m) for m in range(micro_batches)]
        for _ in costs
    ]
    return _backpropagation(costs, hop * share, share, tasks, last)


def one_forward_one_backward(costs, hop, micro_batches):
    """Give the time of one batch, where a stage goes back as soon as it can (1F1B)."""
    share, last = 1.0 / micro_batches, len(costs) - 1
    tasks = []
    for k in range(len(costs)):
        ahead = min(last - k, micro_batches)
        order = [(False, m) for m in range(ahead)]
        for m in range(micro_batches - ahead):
            order += [(False, ahead + m), (True, m)]
        order += [(True, m) for m in range(micro_batches - ahead, micro_batches)]
        tasks.append(order)
    return _backpropagation(costs, hop * share, share, tasks, last)


def _backpropagation(costs, hop, share, tasks, last):
    """Give the end of lists of tasks (is backward, small batch), each device in its order."""
    ends, free, place = {}, [0.0] * len(costs), [0] * len(costs)
    left = sum(map(len, tasks))
    while left:
        for k, cost in enumerate(costs):
            while place[k] < len(tasks[k]):
                back, m = tasks[k][place[k]]
                needs = [(k, False, m)] if back and k == last else []
                if back and k < last:
                    needs = [(k + 1, True, m)]
                elif not back and k > 0:
                    needs = [(k - 1, False, m)]
                if any(need not in ends for need in needs):
                    break
                ready = [ends[need] + (hop if need[0] != k else 0.0) for need in needs]
                start = max([free[k], *ready])
                free[k] = start + (BACKWARD if back else FORWARD) * cost * share
                ends[k, back, m] = free[k]
                place[k] += 1
                left -= 1
    return max(free)


def speed_ups(costs, transfer, batches):
    """Give every schedule's speed-up over one device.

    Args:
        costs: list of relative times of the K stages, of mean 1.
        transfer: float. Time of a transfer as a share of an average stage's.
        batches: int. Batches of an epoch, for schedules that overlap batches.

    Returns:
        Dict of schedule to speed-up.
    """
    hop, k = transfer * (FORWARD + BACKWARD), len(costs)
    alone = one_device(costs, 1)
    return {
        "local, synchronous": alone / synchronous(costs, hop, 1),
        "local, skewed": batches * alone / skewed(costs, hop, batches),
        "local, queues": batches * alone / pipelined(costs, hop, batches),
        "GPipe, 4 micro-batches": alone / gpipe(costs, hop, 4),
        "GPipe, 4K micro-batches": alone / gpipe(costs, hop, 4 * k),
        "1F1B, 4K micro-batches": alone / one_forward_one_backward(costs, hop, 4 * k),
    }


def simulate(batches):
    """Give speed-ups by kind of stages, transfer and K."""
    return {
        kind.__name__: {
            f"{transfer:.2f}": {str(k): speed_ups(kind(k), transfer, batches) for k in STAGES}
            for transfer in TRANSFERS
        }
        for kind in (even, uneven)
    }


def draw(report, path):
    """Draw speed-up by K: a panel for even and one for uneven stages."""
    figure, panels = plt.subplots(1, 2, figsize=(10, 4.2), sharey=True, layout="constrained")
    for panel, (kind, by_transfer) in zip(panels, report.items(), strict=True):
        for transfer, style in ((TRANSFERS[0], "-"), (TRANSFERS[-1], "--")):
            by_stages = by_transfer[f"{transfer:.2f}"]
            for color, schedule in enumerate(by_stages[str(STAGES[0])]):
                values = [by_stages[str(k)][schedule] for k in STAGES]
                label = schedule if style == "-" else None
                panel.plot(STAGES, values, style, color=f"C{color}", label=label)
        panel.set(title=f"{kind} stages", xlabel="stages = devices")
        panel.set_xscale("log", base=2)
        panel.set_xticks(STAGES, [str(k) for k in STAGES])
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("speed-up over one device")
    panels[0].legend(fontsize=8, title=f"dashed: transfer {TRANSFERS[-1]:.0%}")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(argv):
    """Simulate, print, draw."""
    del argv
    report = simulate(FLAGS.batches)
    for kind, by_transfer in report.items():
        print(f"{kind} stages; columns: K = {', '.join(map(str, STAGES))}; transfers of a stage's")
        print(f"time: {' / '.join(f'{one:.0%}' for one in TRANSFERS)}")
        for schedule in by_transfer["0.00"][str(STAGES[0])]:
            cells = [
                " / ".join(f"{by[str(k)][schedule]:.2f}" for by in by_transfer.values())
                for k in STAGES
            ]
            print(f"  {schedule:24} " + "   ".join(f"{cell:21}" for cell in cells).rstrip())
    draw(report, FLAGS.picture or ROOT / "docs" / "stage_parallel.png")
    if FLAGS.json:
        path = FLAGS.results or pathlib.Path(__file__).with_name("simulation.json")
        text = json.dumps({"batches": FLAGS.batches, "speed_up": report}, indent=2)
        pathlib.Path(path).write_text(text + "\n")
        print(json.dumps(report["even"]["0.00"]))


if __name__ == "__main__":
    app.run(main)
