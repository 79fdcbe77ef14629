"""Grad-CAM in closed form against autograd, and on a network that sees one half alone."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from stages.models.networks.backbone import Body, pool
from stages.models.networks.head import Head, HeadParams, new_head
from stages.models.serving.grad_cam import GradCam
from stages.runtime.errors import StageError
from stages.tasks.single_label import SingleLabel
from tests.conftest import BODY


def trained_head(n_features: int) -> Head:
    """With statistics that are not those of a fresh BatchNorm."""
    head = new_head(HeadParams(hidden=16, dropout=0.5), n_features, SingleLabel.from_labels(["a", "b", "c"]), seed=1)
    with torch.no_grad():
        for layer in head:
            if isinstance(layer, nn.BatchNorm1d):
                for tensor in (layer.weight, layer.running_var, layer.bias, layer.running_mean):
                    assert tensor is not None
                    tensor.copy_(torch.rand(tensor.shape) + 0.5)
    return head.eval()


def by_autograd(body: Body, head: Head, image: torch.Tensor) -> torch.Tensor:
    """As in the paper: the mean gradient over all places weighs a map."""
    maps = body.maps(image).detach().requires_grad_(True)
    head(pool(maps)).max().backward()
    assert maps.grad is not None
    heat = F.relu((maps.grad.mean(2, keepdim=True) * maps).sum(1))
    return (heat / heat.max()).detach()


@pytest.mark.parametrize("name", [BODY, "vit_tiny_patch16_224"])
def test_it_is_the_papers(name: str) -> None:
    torch.manual_seed(0)
    body = Body(name).eval()
    head, size = trained_head(body.n_features), 224 if name.startswith("vit") else 64
    images = torch.randn(2, 3, size, size)
    with torch.inference_mode():
        probabilities, heat = GradCam(body, head)(images)
        assert torch.equal(probabilities, F.softmax(head(body(images)), dim=1))
    for one, image in zip(heat, images, strict=True):
        expected = by_autograd(body, head, image[None])
        torch.testing.assert_close(one.flatten()[None], expected, rtol=1e-3, atol=1e-4)
        assert heat.max() == 1


def test_heat_is_of_the_class_that_is_named() -> None:
    torch.manual_seed(0)
    body = Body(BODY).eval()
    head, image = trained_head(body.n_features), torch.randn(1, 3, 64, 64)
    maps = body.maps(image).detach().requires_grad_(True)
    least = int(head(pool(maps)).argmin())
    head(pool(maps))[0, least].backward()
    assert maps.grad is not None
    heat = F.relu((maps.grad.mean(2, keepdim=True) * maps).sum(1))
    with torch.inference_mode():
        _, said = GradCam(body, head)(image, torch.tensor([least]))
    torch.testing.assert_close(said.flatten(1), (heat / heat.max()).detach(), rtol=1e-3, atol=1e-4)


class LeftHalf(nn.Module):
    """Its three maps are the picture's channels, in 8 by 8 places, the right half black."""

    def maps(self, images: torch.Tensor) -> torch.Tensor:
        small = F.adaptive_avg_pool2d(images, 8)
        small[..., 4:] = 0
        return small.flatten(2)


def test_a_network_that_looks_at_the_left_half_lights_the_left_half() -> None:
    body: object = LeftHalf()
    images = torch.rand(16, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    with torch.inference_mode():
        _, heat = GradCam(body, trained_head(6))(images)  # type: ignore[arg-type]
    assert heat.shape == (16, 8, 8)
    assert (heat[..., 4:] == 0).all()
    lit = heat[..., :4].amax((1, 2)) > 0
    assert lit.any()
    assert (heat[lit][..., :4].amax((1, 2)) == 1).all()


class Strip(LeftHalf):
    """Six places."""

    def maps(self, images: torch.Tensor) -> torch.Tensor:
        return super().maps(images)[..., :6]


def test_a_map_that_is_no_square_is_refused_in_a_line() -> None:
    body: object = Strip()
    with pytest.raises(
        StageError,
        match=r"^no Grad-CAM: the network's last feature map has 6 positions, which is no square number$",
    ):
        GradCam(body, trained_head(6))(torch.rand(1, 3, 64, 64))  # type: ignore[arg-type]
