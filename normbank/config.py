"""All settings, read once from the environment (prefix `NORMBANK_`)."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

MIB = 1024 * 1024


class Settings(BaseSettings):
    """What an operator may turn.

    Every field can be set as an environment variable, for example
    `NORMBANK_QUEUE_SCANS=16`. Units stand in the names.
    """

    model_config = SettingsConfigDict(env_prefix="NORMBANK_", frozen=True, extra="ignore")

    database_url: str = Field(default="", description="postgresql+psycopg://…; empty: embedded")
    owner_url: str = Field(
        default="",
        description="the same database as the role that owns its tables, for migrations alone; "
        "empty: database_url, whose role then owns the audit trail too",
    )
    redis_url: str = Field(default="", description="redis://…; empty: embedded")
    blob_url: str = Field(
        default="", description="fsspec URL of the blob store; empty: data_dir/blobs"
    )
    data_dir: Path = Field(
        default=Path("normbank-data"), description="what this node keeps on disk"
    )
    backbone_dir: Path | None = Field(
        default=None, description="a backbone's folder; None: the shipped one"
    )
    older_backbone_dirs: tuple[Path, ...] | None = Field(
        default=None,
        description="folders (in the environment: a JSON list) of backbones that domains adapted "
        "on them are still served on; None: the shipped older ones",
    )

    serial_salt: str = Field(
        default="",
        repr=False,
        description="secret that the hashes of scanners' serial numbers are made with; empty: "
        "serial numbers are not looked at",
    )
    pacs_file: Path | None = Field(
        default=None, description="TOML file of the PACS that there are; None: there are none"
    )

    host: str = "127.0.0.1"
    port: int = 8000
    open_docs: bool = Field(
        default=False, description="serve /docs and /openapi.json without a key"
    )
    log_level: str = "INFO"

    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N")
    precision: str = Field(
        default="auto",
        pattern="^(auto|float32|bfloat16|int8)$",
        description="in which the network computes: float32, bfloat16, int8; auto: the fastest "
        "here, measured at the start",
    )
    backend: str = Field(
        default="auto",
        description="what runs the network: openvino, inductor, eager; auto: the fastest here",
    )
    threads: int = Field(default=0, ge=0, description="CPU threads of the network; 0: all cores")
    batch_slices: int = Field(default=0, ge=0, description="slices per forward pass; 0: by device")
    queue_scans: int = Field(default=8, ge=1, description="scans that may wait for the device")

    poll_s: float = Field(
        default=30.0,
        ge=0,
        description="seconds between two looks at what is served, should PostgreSQL's "
        "notifications be missed; 0: neither looks nor listens, requests find it out",
    )

    lock_timeout_s: float = Field(
        default=5.0,
        gt=0,
        description="seconds that a request waits for a lock in PostgreSQL, and little longer for "
        "all its answers together",
    )
    statement_timeout_s: float = Field(
        default=30.0, gt=0, description="seconds after which PostgreSQL ends a statement"
    )
    idle_transaction_s: float = Field(
        default=30.0,
        gt=0,
        description="seconds after which PostgreSQL ends a transaction that does nothing",
    )
    first_key_days: float = Field(
        default=7.0, gt=0, description="days until the first admin key expires"
    )

    queue_jobs: int = Field(
        default=1000, ge=1, description="asynchronous scans that may be unfinished"
    )

    receive_timeout_s: float = Field(
        default=600.0, gt=0, description="seconds an upload may take to arrive"
    )
    least_upload_bytes_per_s: int = Field(
        default=16 * 1024, ge=1, description="an upload that is slower for long is given up"
    )
    upload_patience_s: float = Field(
        default=30.0,
        gt=0,
        description="seconds an upload may be silent; a slower one than "
        "least_upload_bytes_per_s uses them up little by little, a faster one wins them back",
    )
    uploads: int = Field(default=256, ge=1, description="uploads that may arrive at once")
    uploads_per_key: int = Field(default=64, ge=1, description="the same with one key")
    spool_bytes: int = Field(
        default=16384 * MIB, ge=1, description="bytes of uploads that may lie on disk at once"
    )
    spool_bytes_per_key: int = Field(
        default=8192 * MIB, ge=1, description="the same of one key; no request may be larger"
    )
    max_upload_bytes: int = Field(default=512 * MIB, description="compressed bytes of one file")
    max_request_bytes: int = Field(
        default=8192 * MIB, description="bytes of one request, all parts"
    )
    max_volume_bytes: int = Field(default=2048 * MIB, description="decompressed bytes of one file")
    max_voxels: int = Field(default=512**3, description="voxels of one volume")
    memory_budget_bytes: int = Field(
        default=0,
        ge=0,
        description="memory of one process, API or worker, for all scans that it works on; what "
        "each will take is estimated from its header; 0: 40 % of the machine's or container's",
    )
    memory_wait_s: float = Field(
        default=600.0,
        gt=0,
        description="seconds that a scan waits for its part of that memory, at most",
    )
    min_free_bytes: int = Field(
        default=500 * MIB,
        ge=0,
        description="room that must be left on the disk for the service to be ready",
    )
    min_thickness_mm: float = Field(
        default=60.0, description="least extent of a head along each axis"
    )
    retention_days: float = Field(
        default=7.0, description="how long answered labels can be fetched"
    )

    lease_s: float = Field(
        default=20.0, description="a job whose worker is silent this long is taken back"
    )
    sweep_s: float = Field(default=5.0, description="seconds between two sweeps for lost jobs")
    max_attempts: int = 3
    job_limit_s: int = Field(default=4 * 3600, description="hard time limit of one job")

    @property
    def blobs_at(self) -> str:
        """Where the blob store lies: a folder below `data_dir` unless one is named."""
        return self.blob_url or str(self.data_dir.resolve() / "blobs")

    @property
    def spool_at(self) -> Path:
        """The folder for copies of scans that somebody reads just now."""
        return self.data_dir.resolve() / "spool"


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The process's settings, read at first use."""
    return Settings()
