import pytest
import torch
import torch.nn.functional as F

from autocompress.errors import InputError
from autocompress.train.distill import distillation_loss, soft_label_loss


def test_soft_labels_of_equal_logits_cost_nothing():
    logits = torch.randn(6, 5)
    assert soft_label_loss(logits, logits + 3.0).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_soft_labels_cost_their_divergence_times_temperature_squared(temperature):
    student, teacher = torch.randn(6, 5), torch.randn(6, 5)
    p, q = (F.softmax(x / temperature, dim=1) for x in (student, teacher))
    expected = (q * (q / p).log()).sum(1).mean() * temperature**2
    torch.testing.assert_close(soft_label_loss(student, teacher, temperature), expected)


def test_soft_labels_average_over_positions():
    student, teacher = torch.randn(2, 5, 3, 4), torch.randn(2, 5, 3, 4)
    rows = [x.movedim(1, -1).reshape(-1, 5) for x in (student, teacher)]
    torch.testing.assert_close(soft_label_loss(student, teacher), soft_label_loss(*rows))


def test_soft_labels_take_half_precision():
    logits = torch.randn(6, 5)
    loss = soft_label_loss(logits.bfloat16(), torch.randn(6, 5))
    assert loss.dtype == torch.float32
    assert loss.isfinite()


def test_distillation_loss_is_looked_up_by_name():
    student, teacher = torch.randn(3, 2), torch.randn(3, 2)
    assert torch.equal(distillation_loss("kl")(student, teacher), soft_label_loss(student, teacher))
    assert distillation_loss("none") is None
    mse = distillation_loss("mse")
    assert mse(student, teacher).item() == pytest.approx(((student - teacher) ** 2).mean().item())


@pytest.mark.parametrize("temperature", [1.0, 3.0, 7.5])
def test_distillation_loss_softens_by_its_temperature(temperature):
    student, teacher = torch.randn(3, 2), torch.randn(3, 2)
    loss = distillation_loss("kl", temperature)(student, teacher)
    assert torch.equal(loss, soft_label_loss(student, teacher, temperature))


def test_distillation_loss_names_the_choices():
    with pytest.raises(InputError, match=r"'kld'\. Did you mean 'kl'"):
        distillation_loss("kld")
