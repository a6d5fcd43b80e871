"""Each option's range: what would crash, hang or train nonsense is refused, what people use is taken."""

import pytest
import torch
from torch import nn
from torch.optim import SGD

from latentseg.errors import UserError
from latentseg.presets import load_config
from latentseg.training.optim import discriminator_optimizer

# PyTorch, Pillow or the machine fails at it: exceptions, no memory, a segmentation fault, no end.
FAILS = [
    "seed=99999999999999999999", "data.split_seed=9223372036854775808", "steps=10000000000000000000", "threads=100000",
    "workers=3000", "batch_size=100000", "devices=100000", "num_nodes=100000", "optim.betas=[0.9,1.0]", "optim.lr=1e38",
    "optim.head_factor=1e300", "optim.discriminator_lr=1e39", "optim.weight_decay=1e39", "optim.power=1e300",
    "optim.encoder_updates=1000000", "augment.crop=[100000,100000]", "augment.scale=[1000,1000]",
    "augment.scale_step=1e-310", "augment.views=1000000000", "augment.labeled_views=1000000000",
    "inference.scales=[1000]", "inference.window=[1,1]", "inference.overlap=0.9999",
    "inference.pad_to=[100000,100000]", "inference.batch_size=1000000", "model.head_channels=1000000000",
    "model.micro_batches=10000000000000000000", "discriminator.width=100000000",
    "discriminator.downscale=10000000000000000000",
    "method.groups={}", "method.lambda_cons=1e39", "strong.feature_noise=1e39", "data.scenes.train=1000001",
    "data.scenes.width=100000", "data.class_map={4294967296: 0}", "data.class_map={0: 300}",
]  # fmt: skip
# It trains without a word, and cannot be meant.
NONSENSE = [
    "augment.crop=[1,1]", "data.resize=1e-9", "augment.scale=[1e-9,1e-9]", "augment.scale_step=5",
    "augment.scale_step=0.4", "optim.momentum=1.0", "optim.betas=[1.0,0.99]", "inference.scales=[1e-9]",
    "inference.pad_to=[1,1]", "method.balance=1.5", "method.groups={all: [road]}", "data.classes=[road]",
    "data.ignored_values=[true]",
]  # fmt: skip
USED = [
    "seed=9223372036854775807", "threads=256", "workers=64", "devices=8", "num_nodes=64", "batch_size=1024",
    "augment.crop=[1025,2049]", "augment.crop=[32,32]", "augment.scale_step=0.1", "augment.views=64",
    "inference.window=[798,798]", "inference.scales=[0.5,0.75,1,1.25,1.5,1.75]", "optim.lr=0.1",
    "optim.betas=[0,0.999]", "model.head_channels=512", "discriminator.width=256", "data.resize=0.25",
]  # fmt: skip
SCALE = "augment.scale=[0.5,1.5]"


@pytest.mark.parametrize("override", [*FAILS, *NONSENSE])
def test_what_fails_or_means_nothing_is_refused_in_one_line(override: str) -> None:
    key, _, value = override.partition("=")
    with pytest.raises(UserError) as error:
        load_config("scenes", [SCALE, override])
    [line] = str(error.value).splitlines()
    assert line.startswith((f"scenes: {key}: ", "scenes: augment: scale_step"))
    assert ("should be a valid" in line) == (value == "[true]")  # it was read, and is out of range


@pytest.mark.parametrize("override", USED)
def test_what_people_use_is_taken(override: str) -> None:
    load_config("scenes", [SCALE, override])


@pytest.mark.parametrize(("betas", "rate"), [("[0,0]", "1e-300"), ("[0.999999,0.999999]", "100")])
def test_the_optimisers_take_both_ends(betas: str, rate: str) -> None:
    rates = [f"optim.{name}={rate}" for name in ("lr", "discriminator_lr")]
    optim = load_config("scenes", [f"optim.betas={betas}", *rates, "optim.head_factor=10000", "optim.momentum=0"]).optim
    module = nn.Linear(1, 1)
    module(torch.ones(1, 1)).sum().backward()
    discriminator_optimizer(module, optim).step()
    SGD(module.parameters(), optim.lr * optim.head_factor, optim.momentum, weight_decay=optim.weight_decay).step()


def test_the_largest_seed_is_one_of_pytorch() -> None:
    torch.manual_seed(load_config("scenes", [f"seed={2**63 - 1}"]).seed)
