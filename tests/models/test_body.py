"""The body tries a size before a stage works for hours, and is afterwards as it was."""

import pytest
import timm
import torch

from stages.models.networks.backbone import Body
from stages.runtime.errors import StageError
from tests.conftest import BODY


def test_a_size_that_it_refuses_names_the_param() -> None:
    body = Body("vit_tiny_patch16_224")
    body.check_size(224, "train_full.size_px")
    with pytest.raises(StageError) as refused:
        body.check_size(112, "train_full.size_px")
    assert "train_full.size_px is 112, but vit_tiny_patch16_224 does not accept pictures of that size" in str(
        refused.value
    )
    assert str(refused.value).endswith("it was made for 224")


@pytest.mark.parametrize("name", [BODY, "levit_128s"])  # LeViT keeps what it computed in eval mode
def test_trying_a_size_leaves_no_trace(name: str) -> None:
    body = Body(name).train()
    part = next(iter(body.net.children())).eval()
    before = {key: tensor.clone() for key, tensor in body.state_dict().items()}
    state = torch.get_rng_state()
    assert body.size_problem(body.native_size_px) is None
    assert (body.training, part.training) == (True, False)
    assert all(torch.equal(tensor, before[key]) for key, tensor in body.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    body(torch.randn(2, 3, body.native_size_px, body.native_size_px)).sum().backward()  # of no inference tensors


def test_a_class_token_has_no_place() -> None:
    """VOLO does not tell that it has one."""
    body = Body("volo_d1_224").eval()
    assert not hasattr(body.net, "num_prefix_tokens")
    with torch.inference_mode():
        images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
        maps, tokens = body.maps(images), body.net.forward_features(images)
    assert maps.shape == (1, 384, 14 * 14)
    assert torch.equal(maps, tokens[:, 1:].transpose(1, 2))
    assert timm.create_model("volo_d1_224").cls_token.shape == (1, 1, 384)
