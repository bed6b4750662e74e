"""For --cuda-graph: record a training step on the GPU once, and replay it.

A step is 100 to 300 small operations. Python starts them one by one, and that can
take longer than the GPU needs to compute them. A CUDA graph records, once, all that a function
gives the GPU to do, and then starts all of it at once. On an H200 that made a step 1.7 to 11 times
as fast (docs/speed.md).

Python runs the function only four times. So whatever Python computes in it (the weight of a loss,
`epoch`, random.random(), a counter) stays as it was in the fourth. What changes from step to step
must be an argument, and have the same shape each time. Weights must be changed in place, as
optimizers do. Only torch's random numbers on the GPU are drawn anew. No .item(), and no print of a
tensor.
"""
import torch

WARM_UP = 3  # calls before the recording, as PyTorch's notes on CUDA graphs ask


def recorded(function, device, optimizers):
    """Return a function that computes the same, recorded in its fourth call and replayed from then
    on. Without CUDA it is `function` itself.

    function takes tensors, or nothing, and returns a tensor or a tuple of them. optimizers: those
    whose step it calls. Raises ValueError if a learning rate changes later: the old one is part of
    the recording.
    """
    if device.type != "cuda":
        return function
    if device.index not in (None, 0):  # --device cuda:1: the graph is made on the current device
        torch.cuda.set_device(device)
    graph = torch.cuda.CUDAGraph()
    side_stream = torch.cuda.Stream()
    calls = 0
    inputs = outputs = recorded_rates = None

    def warm_up(*batch):
        """Call the function on a stream of its own, as PyTorch's notes ask."""
        side_stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side_stream):
            result = function(*batch)
        torch.cuda.current_stream().wait_stream(side_stream)
        return result

    def record(*batch):
        """Record the function. The graph always reads and writes the memory of this call."""
        nonlocal inputs, outputs, recorded_rates
        inputs = [tensor.clone() for tensor in batch]
        recorded_rates = learning_rates(optimizers)
        set_capturable(optimizers, True, device)
        with torch.cuda.graph(graph):  # records, and computes nothing
            outputs = function(*inputs)
        set_capturable(optimizers, False, device)  # a checkpoint is the same as without a graph

    def run(*batch):
        nonlocal calls
        calls += 1
        if calls <= WARM_UP:
            return warm_up(*batch)
        if calls == WARM_UP + 1:
            record(*batch)
        if learning_rates(optimizers) != recorded_rates:
            raise ValueError(f"the recorded learning rates are {recorded_rates}, and now they are "
                             f"{learning_rates(optimizers)}: --cuda-graph cannot have a scheduler")
        for recorded_input, tensor in zip(inputs, batch):
            recorded_input.copy_(tensor)
        graph.replay()
        # copies: the next replay overwrites the outputs
        if torch.is_tensor(outputs):
            return outputs.clone()
        return tuple(output.clone() for output in outputs)

    return run


def learning_rates(optimizers):
    return [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]


def set_capturable(optimizers, value, device):
    """Tell Adam and RMSprop that they are recorded: then they count their steps on the GPU.
    SGD has no such switch, and needs none."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            if "capturable" in group:
                group["capturable"] = value
        for state in optimizer.state.values():
            if "step" in state:
                state["step"] = state["step"].to(device)
