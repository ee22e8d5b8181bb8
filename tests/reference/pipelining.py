"""Schedules between mdlc and torch.distributed.pipelining, both ways. Needs a PyTorch that has it
(2.6 or later); without, it says so and ends with 77.

usage: pipelining.py MDLC MODELS

Ours: what mdlc plan --csv writes is read by _PipelineScheduleRuntime._load_csv, which validates it
and adds the communication, and PyTorch's simulator goes through to the end.
Theirs: what _dump_csv writes of PyTorch's own schedules is taken by mdlc plan --schedule-file, and
mdlc writes it back as the same order. LoopedBFS goes back through the micro-batches from the last to
the first, which mdlc refuses: gradients are summed in the order of the micro-batches.
"""

import csv
import itertools
import os
import re
import subprocess
import sys
import tempfile

try:
    from torch.distributed.pipelining import schedules
    from torch.distributed.pipelining.stage import _PipelineStageBase

    RUNTIME = schedules._PipelineScheduleRuntime
    SINGLE = (schedules.ScheduleGPipe, schedules.Schedule1F1B)
    LOOPED = (schedules.ScheduleInterleaved1F1B, schedules.ScheduleInterleavedZeroBubble)
    BACKWARDS, V = schedules.ScheduleLoopedBFS, schedules.ScheduleZBVZeroBubble
    DUAL = getattr(schedules, "ScheduleDualPipeV", None)
    hasattr(SINGLE[0], "_get_pipeline_order") or (_ for _ in ()).throw(ImportError("older"))
except (ImportError, AttributeError) as missing:
    print(f"SKIPPED: no PyTorch here with torch.distributed.pipelining ({missing})")
    sys.exit(77)

MDLC, MODELS = sys.argv[1], sys.argv[2]

CHAIN = """
model chain {{
    input x : f32[64];
    target y : f32[64];
    for i in 0 .. {layers} {{
        x = relu(linear(x, 64) as fc[i]);
    }}
    loss mse(x, y);
}}
train {{ batch = {microbatches}; }}
devices gpu[{ranks}] = cpu;
"""

# The first layers are frozen: their chunks have no backward pass, or W alone.
FROZEN = """
model frozen {
    input x : f32[8];
    target y : f32[8];
    freeze {
        x = relu(linear(x, 8) as a) @gpu[0];
        x = relu(linear(x, 8) as b) @gpu[1];
    }
    x = linear(x, 8) as c @gpu[2];
    x = linear(x, 8) as d @gpu[0];
    loss mse(x, y) @gpu[3];
}
train { batch = 8; }
parallel { microbatch = 2; }
"""


class Stage(_PipelineStageBase):
    """As much of a stage as a schedule asks for before it runs."""

    def __init__(self, rank, ranks, stages):
        self.group_rank, self.group_size, self.num_stages = rank, ranks, stages
        self.stage_index, self.group, self.submod, self.has_backward = rank, None, None, True
        self.stage_index_to_group_rank = {}

    def _prepare_forward_infra(self, *args, **kwargs):
        raise NotImplementedError

    def _prepare_backward_infra(self, *args, **kwargs):
        raise NotImplementedError

    def _create_grad_recv_info(self, *args, **kwargs):
        raise NotImplementedError

    def _configure_outputs_meta(self, *args, **kwargs):
        raise NotImplementedError

    def _get_init_p2p_neighbors_ops(self):
        return []


def stages(ranks, each):
    return [Stage(0, ranks, ranks * each) for _ in range(each)]


def mdlc(*args):
    return subprocess.run([MDLC, *args, "--target", "host", "-q"], capture_output=True, text=True)


def fail(what, *more):
    print("FAIL:", what, *more, sep="\n")
    sys.exit(1)


def rows(path):
    with open(path, newline="") as file:
        return [[cell for cell in row if cell] for row in csv.reader(file)]


def simulate(runtime):
    """Goes through runs and messages; what PyTorch adds for sharded weights it cannot simulate."""
    own = runtime.pipeline_order_with_comms
    runtime.pipeline_order_with_comms = {
        rank: [a for a in own[rank] if not any(s in str(a) for s in ("SHARD", "REDUCE"))]
        for rank in own
    }
    runtime._simulate()


def check_ours(model, schedule, path, *options):
    done = mdlc("plan", model, "--set", f"parallel.schedule={schedule}", "--csv", path, *options)
    if done.returncode:
        fail(f"{model} {schedule}", done.stderr)
    order = rows(path)
    actions = [schedules._Action.from_str(cell) for row in order for cell in row]
    ranks = len(order)
    count = max(a.stage_index for a in actions) + 1
    microbatches = max(a.microbatch_index for a in actions) + 1
    runtime = RUNTIME([Stage(0, ranks, count)], microbatches)
    try:
        runtime._load_csv(path, format="compute_only")
        simulate(runtime)
    except Exception as error:
        fail(f"{model} {schedule}: PyTorch refuses it", repr(error))
    written = path + ".torch"
    runtime._dump_csv(written, format="compute_only")
    if rows(written) != order:
        fail(f"{model} {schedule}: PyTorch writes another order")
    again = mdlc("plan", model, "--set", f"parallel.schedule={schedule}",
                 "--schedule-file", written, "--csv", path + ".again", *options)
    if again.returncode or rows(path + ".again") != order:
        fail(f"{model} {schedule}: mdlc does not take it back from PyTorch", again.stderr)


def runs_alone(order):
    return {rank: [a for a in row if a is None or a.is_compute_op] for rank, row in order.items()}


def from_zero(row):
    """Schedule1F1B describes the last rank with forward passes counted from 1."""
    forwards = [a.microbatch_index for a in row if a and a.computation_type == schedules.F]
    return [a._replace(microbatch_index=a.microbatch_index - min(forwards))
            if a and a.computation_type == schedules.F else a for a in row]


def orders_of(ranks, each, microbatches):
    """PyTorch's own schedules: a name, and what each rank runs."""
    kinds = [*LOOPED, BACKWARDS]
    if each == 1:
        kinds += SINGLE
    if each == 2:
        kinds.append(V)
        if DUAL:
            kinds.append(DUAL)
    for kind in kinds:
        try:
            if kind in SINGLE:
                order = kind(Stage(0, ranks, ranks), microbatches)._get_pipeline_order()
                order = {rank: from_zero(row) for rank, row in runs_alone(order).items()}
            else:
                order = kind(stages(ranks, each), microbatches).pipeline_order
        except ValueError:  # it is not for that number of micro-batches
            continue
        yield kind.__name__, order


def flat(order):
    """Without idle cells; what is overlapped is one after the other."""
    out = []
    for rank in sorted(order):
        row = []
        for action in order[rank]:
            if action is not None:
                row += [str(a) for a in (action.sub_actions or [action])]
        out.append(row)
    return out


def same_order(want, have, split):
    """Whether mdlc runs what PyTorch does. Where it has the backward pass in two parts it runs B as
    the two; and a chunk with one of them alone has B in the file, in the place of that part."""
    for theirs, ours in zip(want, have):
        alone = sorted({cell.split("B")[0] for cell in ours if "B" in cell} if split else ())
        rows = []
        for parts in itertools.product("IW", repeat=len(alone)):
            part = dict(zip(alone, parts))
            row = []
            for cell in theirs:
                chunk, kind, m = re.fullmatch(r"(\d+)([FBIW])(\d+)", cell).groups()
                if kind == "F" or not split:
                    row.append(cell)
                elif chunk in part:
                    row += [f"{chunk}B{m}"] if kind in ("B", part[chunk]) else []
                else:
                    row += [f"{chunk}{k}{m}" for k in "IW" if kind in ("B", k)]
            rows.append(row)
        if ours not in rows:
            return False
    return len(want) == len(have)


def check_theirs(name, order, model, path):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        for rank in sorted(order):
            writer.writerow(order[rank])
    done = mdlc("plan", model, "--schedule-file", path, "--csv", path + ".again")
    if name == BACKWARDS.__name__:
        if done.returncode != 1 or "order of the micro-batches" not in done.stderr:
            fail(f"{name}: refused as it should be?", done.returncode, done.stderr)
        return
    if done.returncode:
        fail(f"{name}: mdlc refuses it", done.stderr)
    split = any("I" in cell or "W" in cell for row in flat(order) for cell in row)
    want, have = flat(order), rows(path + ".again")
    if not same_order(want, have, split):
        fail(f"{name}: mdlc writes another order", *want, *have)


def main():
    ours = theirs = 0
    names = set()
    with tempfile.TemporaryDirectory() as work:
        path = os.path.join(work, "schedule.csv")
        frozen = os.path.join(work, "frozen.mdl")
        with open(frozen, "w") as file:
            file.write(FROZEN)
        kinds = "1f1b", "gpipe", "interleaved", "zero_bubble", "zb_h2", "zb_v", "searched"
        models = [frozen] + [os.path.join(MODELS, f"{name}.mdl") for name in
                             ("two_gpu", "deep_mlp", "autoencoder", "skip_cnn")]
        for model in models:
            for kind in kinds:
                check_ours(model, kind, path)
                ours += 1
        model = os.path.join(work, "chain.mdl")
        for ranks, each, microbatches in ((1, 1, 3), (2, 1, 4), (4, 1, 8), (3, 1, 2), (2, 2, 4),
                                          (4, 2, 8), (3, 2, 7), (2, 3, 6), (4, 2, 16)):
            with open(model, "w") as file:
                file.write(CHAIN.format(layers=3 * ranks * each, ranks=ranks,
                                        microbatches=microbatches))
            for kind in kinds:
                check_ours(model, kind, path, "--set", "parallel.microbatch=1")
                ours += 1
            for name, order in orders_of(ranks, each, microbatches):
                check_theirs(name, order, model, path)
                names.add(name)
                theirs += 1
    if len(names) < 6:
        fail(f"only {sorted(names)} were tried")
    print(f"{ours} schedules of mdlc, {theirs} of PyTorch: {', '.join(sorted(names))}")


main()
