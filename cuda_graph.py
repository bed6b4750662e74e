"""For --cuda-graph, which alone imports this file: a round of the game, recorded on the GPU.

A round is some two or three hundred small operations. Python starts them one by one, and that can
take longer than the GPU needs to compute them. A CUDA graph records, once, what a function gives
the GPU to do, and then starts all of it at once. On an H200 that made a round 1.7 to 11 times as
fast (docs/speed.md).

Python runs the function four times only. So whatever Python computes in it (a weight of a loss,
`epoch`, random.random(), a counter) stays as it was in the fourth. What changes from round to round
must be an argument, of the same shape each time; weights must be changed in place, as optimizers
do. Only torch's random numbers on the GPU are drawn anew. No .item(), no print of a tensor.
"""
import torch


def recorded(play, device, optimizers):
    """`play`, recorded in its fourth round, and replayed from then on. (No CUDA: `play` itself.)

    play takes a minibatch (tensors) and returns a tensor or a tuple of them; optimizers: those
    whose step it calls. Raises ValueError when a rate changes later: it is part of the recording.
    The graph reads and writes the same memory in every round, so what goes in and what comes out
    is copied.
    """
    if device.type != "cuda":
        return play
    if device.index:  # --device cuda:1: the graph is made on the current device
        torch.cuda.set_device(device)
    graph, side, rounds = torch.cuda.CUDAGraph(), torch.cuda.Stream(), 0
    inputs = outputs = rates = None

    def capturable(yes):  # what Adam and RMSprop want to be told while they are recorded
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["capturable"] = yes
            for state in optimizer.state.values():
                if "step" in state:
                    state["step"] = state["step"].to(device)

    def replay(*batch):
        nonlocal rounds, inputs, outputs, rates
        rounds += 1
        if rounds <= 3:  # on a stream of its own, as PyTorch's notes on CUDA graphs ask
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                result = play(*batch)
            torch.cuda.current_stream().wait_stream(side)
            return result
        now = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
        if rounds == 4:
            inputs, rates = [x.clone() for x in batch], now
            capturable(True)
            with torch.cuda.graph(graph):  # records, and computes nothing
                outputs = play(*inputs)
            capturable(False)  # a run's checkpoint is the same with a graph and without
        if now != rates:
            raise ValueError(f"the rates {rates} are recorded, and now they are {now}: a scheduler "
                             "cannot be used with --cuda-graph")
        for old, new in zip(inputs, batch):
            old.copy_(new)
        graph.replay()
        return outputs.clone() if torch.is_tensor(outputs) else [x.clone() for x in outputs]

    return replay
