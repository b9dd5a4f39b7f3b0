"""KFP interface of the step that trains a model."""

from kfp import dsl
from kfp.dsl import HTML, Artifact, Dataset, Input, Markdown, Model, Output

from components.images import image

#: Where each group of settings begins, for --help and the reference.
GROUPS = {
    "the network": "backbone",
    "the loss": "loss",
    "the training": "epochs",
    "how it runs": "precision",
    "what it resumes from, and its place in a table": "checkpoint_dir",
}


@dsl.component(base_image=image("fine_tune"), install_kfp_package=False)
def fine_tune(
    faces: Input[Dataset],
    splits: Input[Dataset],
    class_weights: Input[Artifact],
    model: Output[Model],
    history: Output[Dataset],
    learning_curves: Output[HTML],
    summary: Output[Markdown],
    backbone: str = "se_resnet50",
    backbone_args: str = "{}",
    weights: str = "",
    input_norm: str = "paper",
    freeze_stages: int = -1,
    keep_batchnorm: str = "auto",
    feature_dim: int = 512,
    image_size: int = 224,
    loss: str = "weighted_cluster+weighted_softmax",
    center_lambda: float = 0.5,
    center_gamma: float = 0.5,
    cluster_lambda: float = 1.0,
    cluster_gamma: float = 1.0,
    cluster_alpha: float = 1.0,
    center_init: str = "normal",
    center_update: str = "paper",
    center_step_limit: float = 1.0,
    feature_norm: str = "none",
    alpha_scale: str = "absolute",
    lambda_warmup_epochs: int = 0,
    stop_on_collapse: bool = False,
    reduction: str = "weighted_mean",
    epochs: int = 20,
    batch_size: int = 36,
    learning_rate: float = 0.001,
    momentum: float = 0.9,
    weight_decay: float = 0.0005,
    halve_learning_rate_every: int = 10,
    crop_scale_min: float = 0.7,
    select: str = "best_uar",
    precision: str = "float32",
    deterministic: bool = False,
    channels_last: bool = True,
    compile_model: bool = False,
    processes: int = 1,
    workers: int = 0,
    seed: int = 0,
    checkpoint_dir: str = "",
    checkpoint_every: int = 0,
    row: int = 0,
    pretrained: str = "",
    weights_digest: str = "",
):
    """Fine-tune a model for the eight expressions with one of the paper's five losses.

    The backbone gets a head of two layers (features, then logits); its first stages may stay frozen. After each
    epoch the model is validated, and the best one is kept.
    Reads faces/, splits/, class_weights/ and a file of pre-trained weights. Writes model/: model.safetensors and
    model.json; history/: history.parquet (a row an epoch). Logs an MLflow run where MLFLOW_TRACKING_URI is set.
    Exit codes: 0 done, 2 something to mend (one line says what).
    Example: python -m components.fine_tune --faces out/ingest/faces --splits out/split/splits
    --class-weights out/weights/class_weights --backbone mobilenetv1_100 --weights FILE --output-dir out/train

    Args:
        faces: Dataset of ingest_affectnet.
        splits: Splits of split_dataset.
        class_weights: Weights of compute_class_weights.
        backbone: se_resnet50 or resnet50 (the paper's), or any model name of timm.
        backbone_args: Further arguments of the backbone, as JSON, e.g. {"pad_type": "same"}.
        weights: File of pre-trained weights (safetensors, .pth or .pkl), here or s3://bucket/key; empty to train from scratch.
        input_norm: How pixels are normalised: paper (ImageNet mean and std) or native (what the weights expect).
        freeze_stages: First stages of the backbone that do not train; -1 to 5, -1 for the paper's (3, 0 from scratch).
        keep_batchnorm: BatchNorm layers that keep their statistics: frozen (those of frozen stages), all, none; auto is
            all for weights with folded BatchNorm, else frozen.
        feature_dim: Width of the layer before the output layer; 1 to 65536. The paper: 512.
        image_size: Side of the square that the network sees, in pixels; 32 to 1024. The paper: 224.
        loss: softmax, center+softmax, weighted_softmax, center+weighted_softmax or weighted_cluster+weighted_softmax.
        center_lambda: Weight of the center part where the loss has one; 0 or more. The paper: 0.5.
        center_gamma: Step size of the centers of the center part; above 0. Wen et al. 2016: 0.5.
        cluster_lambda: Weight of the weighted-cluster part where the loss has one; 0 or more. The paper: 1.
        cluster_gamma: Step size of the centers of the weighted-cluster part (Eq. 9); above 0. The paper: 1.
        cluster_alpha: Constant in the denominator of Eq. 4; above 0. The paper: 1.
        center_init: Where centers start: normal, zeros or class_means. Not given in the paper.
        center_update: paper (Eq. 8-9, sign mended) or gradient (through the denominator of Eq. 4 as well).
        center_step_limit: Largest share of the way to its class that a center moves in a step (Eq. 9); 0 or more, 0 for no limit, as in the paper.
        feature_norm: none, or l2 to divide features and centers by their length inside the center or cluster part.
        alpha_scale: absolute, or features to multiply cluster_alpha by the features' mean square length.
        lambda_warmup_epochs: Epochs over which lambda rises from 0 to its value; 0 or more, 0 for none, as in the paper.
        stop_on_collapse: Stop with an error when every face gets nearly the same feature.
        reduction: How a batch is averaged: weighted_mean (over the sum of its weights), mean or sum.
        epochs: Passes over the training split; 1 or more. Not given in the paper.
        batch_size: Images a step, over all processes; 2 or more. The paper: 36 pre-trained, 30 from scratch.
        learning_rate: Initial learning rate of SGD; above 0. The paper: 0.001 pre-trained, 0.01 from scratch.
        momentum: Momentum of SGD; 0 or more, below 1. The paper: 0.9.
        weight_decay: Weight decay of SGD, never on centers; 0 or more. The paper: 0.0005.
        halve_learning_rate_every: Epochs after which the learning rate is halved; 1 or more. The paper: 10.
        crop_scale_min: Smallest share of a face's area that a random crop keeps; above 0, up to 1.
        select: Which epoch's model is kept: best_uar, best_loss (both on validation) or last.
        precision: float32, bfloat16 or float16 (float16 on GPUs alone); auto measures at the start whether bfloat16 is fast
            on this device and takes it if so, else float32.
        deterministic: Use deterministic algorithms alone, so that equal runs on one machine are equal to the bit; slower.
        channels_last: Keep images and weights channels last in memory: the same numbers to rounding, faster on most GPUs.
        compile_model: Compile the network with torch.compile: a slow start, then faster steps. Needs a C++ compiler.
        processes: Processes that divide each batch, one a GPU, 0 to 64; 0 for as many as there are GPUs (1 on a CPU).
        workers: Processes that load images for each process that trains, 0 to 128; 0 for its share of the cores, at most 8. The
            result does not depend on it.
        seed: Seed of the head, the centers, the order of images and their crops; 0 or more.
        checkpoint_dir: Folder or s3://bucket/prefix for what a stopped run resumes from, in a sub-folder of its own; empty
            for none.
        checkpoint_every: Steps between checkpoints within an epoch; 0 or more, 0 for one at the end of each epoch.
        row: Number of this model in the paper's Tables 5 and 6; 0 to 20, 0 for none.
        pretrained: What the weights were trained on, as tables and run names say it; empty for the file's name.
        weights_digest: SHA-256 of the weights file, checked, so that cached results follow it; set by the launcher.

    Returns:
        model: Weights and how to build and feed the network.
        history: Losses, validation metrics and center diagnostics by epoch.
        learning_curves: Loss, accuracy and UAR by epoch, as charts.
        summary: What was trained, with its best validation figures.
    """
    from affectflow.steps import run_step
    from components.fine_tune.step import run

    run_step(
        run,
        faces=faces.path,
        splits=splits.path,
        class_weights=class_weights.path,
        model=model.path,
        history=history.path,
        learning_curves=learning_curves.path,
        summary=summary.path,
        backbone=backbone,
        backbone_args=backbone_args,
        weights=weights,
        input_norm=input_norm,
        freeze_stages=freeze_stages,
        keep_batchnorm=keep_batchnorm,
        feature_dim=feature_dim,
        image_size=image_size,
        loss=loss,
        center_lambda=center_lambda,
        center_gamma=center_gamma,
        cluster_lambda=cluster_lambda,
        cluster_gamma=cluster_gamma,
        cluster_alpha=cluster_alpha,
        center_init=center_init,
        center_update=center_update,
        center_step_limit=center_step_limit,
        feature_norm=feature_norm,
        alpha_scale=alpha_scale,
        lambda_warmup_epochs=lambda_warmup_epochs,
        stop_on_collapse=stop_on_collapse,
        reduction=reduction,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        momentum=momentum,
        weight_decay=weight_decay,
        halve_learning_rate_every=halve_learning_rate_every,
        crop_scale_min=crop_scale_min,
        select=select,
        precision=precision,
        deterministic=deterministic,
        channels_last=channels_last,
        compile_model=compile_model,
        processes=processes,
        workers=workers,
        seed=seed,
        checkpoint_dir=checkpoint_dir,
        checkpoint_every=checkpoint_every,
        row=row,
        pretrained=pretrained,
        weights_digest=weights_digest,
    )
