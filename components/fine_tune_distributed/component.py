"""KFP interface of the step that trains a model over several nodes."""

from kfp import dsl
from kfp.dsl import HTML, Artifact, Dataset, Input, Markdown, Model, Output

from components.images import image


@dsl.component(base_image=image("fine_tune_distributed"), install_kfp_package=False)
def fine_tune_distributed(
    faces: Input[Dataset],
    splits: Input[Dataset],
    class_weights: Input[Artifact],
    model: Output[Model],
    history: Output[Dataset],
    learning_curves: Output[HTML],
    summary: Output[Markdown],
    job_image: str,
    settings: dict = {},  # noqa: B006 - KFP reads the default; nothing changes it
    nodes: int = 2,
    gpus_per_node: int = 1,
    cpus_per_node: str = "4",
    memory_per_node: str = "32Gi",
    shared_dir: str = "/mnt/affectflow/distributed",
    runtime: str = "affectflow-torch",
    namespace: str = "",
    hours: int = 168,
):
    """Fine-tune a model over several nodes: what fine_tune does, in a TrainJob of Kubeflow Trainer.

    Submits the job, shows what its first node says, waits for it, and ends it when this step is ended. A step that
    is tried again goes on with the job that it finds. Inputs and outputs pass through a folder that the step and all
    nodes mount.
    Reads faces/, splits/, class_weights/. Writes model/, history/, learning_curves, summary: those of fine_tune.
    Exit codes: 0 done, 2 something to mend (one line says what).
    Example: python -m components.fine_tune_distributed --faces out/ingest/faces --splits out/split/splits
    --class-weights out/weights/class_weights --job-image IMAGE --nodes 2 --output-dir out/train

    Args:
        faces: Dataset of ingest_affectnet.
        splits: Splits of split_dataset.
        class_weights: Weights of compute_class_weights.
        job_image: Image of the nodes: that of fine_tune.
        settings: Settings of fine_tune by name, those that differ from its defaults, e.g. {"epochs": 20}.
        nodes: Nodes, each with a pod of the job; 1 to 64.
        gpus_per_node: GPUs of each node, each with a process, 0 to 16; 0 for one process a node on its CPU.
        cpus_per_node: Cores of each node's pod.
        memory_per_node: Memory of each node's pod.
        shared_dir: Folder on a volume that this step and all nodes mount at the same path, for writing.
        runtime: Name of the TrainingRuntime: what the nodes' pods look like.
        namespace: Where the job runs; empty for this step's own namespace.
        hours: After which the job is ended; 1 to 8760.

    Returns:
        model: Weights and how to build and feed the network.
        history: Losses, validation metrics and center diagnostics by epoch.
        learning_curves: Loss, accuracy and UAR by epoch, as charts.
        summary: What was trained, with its best validation figures.
    """
    from affectflow.steps import run_step
    from components.fine_tune_distributed.step import run

    run_step(
        run,
        faces=faces.path,
        splits=splits.path,
        class_weights=class_weights.path,
        model=model.path,
        history=history.path,
        learning_curves=learning_curves.path,
        summary=summary.path,
        job_image=job_image,
        settings=settings,
        nodes=nodes,
        gpus_per_node=gpus_per_node,
        cpus_per_node=cpus_per_node,
        memory_per_node=memory_per_node,
        shared_dir=shared_dir,
        runtime=runtime,
        namespace=namespace,
        hours=hours,
    )
