"""For --cuda-graph, which alone imports this file: a round of the game, recorded on the GPU.

A round is some two or three hundred small operations. Python starts them one by one, and that can
take longer than the GPU needs to compute them. A CUDA graph records, once, what a function gives
the GPU to do, and then starts all of it at once. On an H200 that made a round 1.7 to 11 times as
fast (docs/speed.md).

What is recorded must do the same in every round: on tensors of the same shapes, with no number read
by Python (.item(), print, if loss > 1). Random numbers are drawn anew in every round.
"""
import torch


def recorded(play, device, optimizers):
    """`play`, recorded in its fourth round, and replayed from then on. (No CUDA: `play` itself.)

    play takes a minibatch of reals, always of the same shape, and returns a tensor or a tuple of
    them; optimizers: those whose step it calls. The graph reads and writes the same memory in every
    round, so what goes in and what comes out is copied.
    """
    if device.type != "cuda":
        return play
    graph, side, rounds = torch.cuda.CUDAGraph(), torch.cuda.Stream(), 0
    inputs = outputs = None

    def capturable(yes):  # what Adam and RMSprop want to be told while they are recorded
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["capturable"] = yes
            for state in optimizer.state.values():
                if "step" in state:
                    state["step"] = state["step"].to(device)

    def replay(real):
        nonlocal rounds, inputs, outputs
        rounds += 1
        if rounds <= 3:  # on a stream of its own, as PyTorch's notes on CUDA graphs ask
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                result = play(real)
            torch.cuda.current_stream().wait_stream(side)
            return result
        if rounds == 4:
            inputs = real.clone()
            capturable(True)
            with torch.cuda.graph(graph):  # records, and computes nothing
                outputs = play(inputs)
            capturable(False)  # a run's checkpoint is the same with a graph and without
        inputs.copy_(real)
        graph.replay()
        return outputs.clone() if torch.is_tensor(outputs) else [x.clone() for x in outputs]

    return replay
