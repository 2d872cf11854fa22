"""A Celery application with one task, one inference each; its broker is the folder of the environment's BROKER."""

from __future__ import annotations

import os

from celery import Celery

from tests.support.serving import predict

folder = os.environ["BROKER"]
app = Celery("tests", broker="filesystem://")
app.conf.broker_transport_options = {
    "data_folder_in": folder,
    "data_folder_out": folder,
    "control_folder": f"{folder}/control",
}
app.conf.task_ignore_result = True
app.conf.worker_prefetch_multiplier = 1


@app.task
def infer() -> None:
    """Runs one inference as a Celery task."""
    predict()
