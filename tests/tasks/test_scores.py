import torch
from torchmetrics.image import StructuralSimilarityIndexMeasure

from healing_mnist.tasks.scores import StructuralSimilarity, class_scores


def test_structural_similarity_is_that_of_torchmetrics_over_unequal_batches():
    generator = torch.Generator().manual_seed(0)
    ours, theirs = StructuralSimilarity(), StructuralSimilarityIndexMeasure(data_range=1.0)
    for count, noise in ((7, 0.1), (2, 0.6)):
        target = torch.rand(count, 1, 28, 28, generator=generator)
        prediction = (target + noise * torch.randn(target.shape, generator=generator)).clamp(0, 1)
        ours.update(prediction, target)
        theirs.update(prediction, target)
    torch.testing.assert_close(ours.compute(), theirs.compute(), rtol=0, atol=1e-5)


def test_accuracy_is_the_share_of_right_answers_not_the_mean_over_classes():
    accuracy = class_scores(3)["accuracy"]
    accuracy.update(torch.eye(3)[[0, 0, 0, 0]], torch.tensor([0, 0, 0, 1]))
    assert float(accuracy.compute()) == 0.75
