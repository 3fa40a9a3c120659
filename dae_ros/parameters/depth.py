"""What may be set of `depth_node`, and of `dae-ros bag`, which runs the same pipeline."""

from __future__ import annotations

from dataclasses import dataclass

from dae_ros.parameters.declaration import NodeParameters, declare


@dataclass(frozen=True, kw_only=True)
class DepthParameters(NodeParameters):
    """Parameters of `depth_node`, and of `dae-ros bag`, which runs the same pipeline."""

    weights: str = declare(
        "micro",
        "Checkpoint file, or a name from models/manifest.yaml: micro comes with dae_ros and was "
        "trained on simulated worlds only: elsewhere its metres are a guess (models/micro.md). "
        "untrained:NAME tries the plumbing with random weights (vits, vitb, vitl, vitt, micro, "
        "micro_memoryless, e2depth, ereformer).",
    )
    backend: str = declare(
        "auto",
        "What runs the network. auto, for a checkpoint: live on a CPU, where openvino is installed "
        "and follow_snapshots is off, torch until openvino takes over; else torch. For a file of "
        "`dae-ros export`: openvino on a CPU where it is installed, else onnxruntime.",
        choices=("auto", "torch", "onnxruntime", "tensorrt", "openvino"),
    )
    device: str = declare("auto", "Where the network runs: auto, cpu, cuda or cuda:N.")
    precision: str = declare(
        "auto",
        "Arithmetic of the network; auto is float32 on a CPU, on a GPU bfloat16 with torch (before "
        "Ampere float16 or float32) and float16 with others, and what an exported file has. int8 "
        "is for files of `dae-ros export --precision int8` on openvino.",
        choices=("auto", "float32", "bfloat16", "float16", "int8"),
    )
    threads: int = declare(
        0,
        "CPU threads of the network; 0 leaves one core to ROS and the decoder.",
        minimum=0,
        maximum=256,
    )
    event_encoder: str = declare(
        "checkpoint",
        "Event representation; checkpoint uses the one that the weights name.",
        choices=("checkpoint", "tencode", "tencode_voxel"),
    )
    orientation: str = declare(
        "checkpoint",
        "Whether the network's number grows with depth or with inverse depth; "
        "checkpoint uses what the weights say, the others are for weights that do not say it.",
        choices=("checkpoint", "depth", "inverse_depth"),
    )
    scale: float = declare(
        0.0,
        "Scale to metres, metres = scale p + shift (or 1 / (scale p + shift) for "
        "inverse_depth); 0 takes the checkpoint's.",
        minimum=0.0,
        at_runtime=True,
    )
    shift: float = declare(
        0.0, "Shift to metres, see scale; used only where scale is given.", at_runtime=True
    )
    window: str = declare(
        "time",
        "What closes a window: time (a grid of hop_s), count (every hop_events "
        "events), frame (the stamp of each camera frame), trigger (each rising edge of an "
        "external trigger).",
        choices=("time", "count", "frame", "trigger"),
    )
    window_s: float = declare(
        0.05,
        "Length of a window in seconds (time, frame and trigger windows).",
        minimum=0.001,
        maximum=2.0,
    )
    hop_s: float = declare(
        0.05, "Distance between the ends of time windows in seconds.", minimum=0.001, maximum=2.0
    )
    window_events: int = declare(
        30_000, "Length of a count window in events.", minimum=1, maximum=10_000_000
    )
    hop_events: int = declare(
        30_000,
        "Distance between the ends of count windows in events.",
        minimum=1,
        maximum=10_000_000,
    )
    overload: str = declare(
        "latest",
        "When windows close faster than the network steps: latest skips to the "
        "newest window, merge lengthens the next window over the skipped ones, queue never "
        "skips (for recordings).",
        choices=("latest", "merge", "queue"),
    )
    ring_s: float = declare(
        3.0,
        "How much event time the ring keeps, in seconds (count windows: ring_mb alone bounds it).",
        minimum=0.1,
        maximum=60.0,
    )
    ring_mb: int = declare(
        256, "How much memory the ring may take, in MB.", minimum=1, maximum=16_384
    )
    inbox_mb: int = declare(
        1024,
        "How many MB of messages may wait for the worker; beyond it the oldest are dropped and "
        "counted, or with overload queue the publishers wait.",
        minimum=1,
        maximum=16_384,
    )
    largest_lag_s: float = declare(
        2.0,
        "Where decoding what waits takes longer than this many seconds, because more comes than "
        "can be decoded, the rest of it is dropped and counted, so that depth goes on with what is "
        "new (not with overload queue).",
        minimum=0.05,
        maximum=3600.0,
    )
    max_silence_s: float = declare(
        1.0,
        "After this many seconds of empty windows stepping stops, and the next event resets "
        "the recurrent state; without any message for as long, /diagnostics warns.",
        minimum=0.05,
        maximum=3600.0,
    )
    gap_reset_ms: int = declare(
        200,
        "A gap in the stream longer than this resets the recurrent state, in ms.",
        minimum=1,
        maximum=3_600_000,
    )
    stamp_clock: str = declare(
        "ros",
        "Clock of the published stamps: ros (window end through the clock estimator) or "
        "sensor (decoded event time as it is).",
        choices=("ros", "sensor"),
    )
    image_stamp: str = declare(
        "mid",
        "What the stamp of a camera frame means: the start, mid or end of exposure.",
        choices=("mid", "start", "end"),
    )
    exposure_s: float = declare(
        0.0,
        "Exposure time of the camera frames in seconds, to find the middle of exposure.",
        minimum=0.0,
        maximum=1.0,
    )
    color_near_m: float = declare(
        0.5, "Nearest depth of the colour map in metres; colours are of its logarithm.",
        minimum=0.001, at_runtime=True,
    )  # fmt: skip
    color_far_m: float = declare(
        20.0, "Farthest depth of the colour map in metres.", minimum=0.001, at_runtime=True
    )
    frame_id: str = declare(
        "", "Overrides the frame_id of the published images; empty takes the event messages'."
    )
    calibration: str = declare(
        "",
        "Calibration file of the event camera (YAML of Kalibr or camera_calibration), for drivers "
        "that publish none; it stands in for camera_info, which is not subscribed then.",
    )
    event_reliability: str = declare(
        "auto",
        "QoS of the event subscription: auto matches what the publishers offer.",
        choices=("auto", "reliable", "best_effort"),
    )
    event_queue_depth: int = declare(
        1000, "Messages that DDS may hold for the event subscription.", minimum=1, maximum=100_000
    )
    follow_snapshots: bool = declare(
        False,
        "Change to the weights that distill/snapshot announces while depth goes on: verified, "
        "rehearsed, watched, and taken back where they are worse.",
    )
    snapshots: str = declare(
        "",
        "With follow_snapshots: folder of a trainer, whose latest version is taken at once when "
        "the node is activated; empty waits for an announcement.",
    )
    replay_windows: int = declare(
        48,
        "How many past windows new weights replay to rebuild the recurrent state: as many as the "
        "memory of the place needs. Their images are kept.",
        minimum=4,
        maximum=256,
    )
    canary_windows: int = declare(
        40,
        "For how many windows new weights are watched before they stay.",
        minimum=8,
        maximum=100_000,
    )
    canary_scale_step: float = declare(
        0.35,
        "Largest change of the median depth by new weights, as |log| of the ratio.",
        minimum=0.001,
    )
    canary_flicker: float = declare(
        1.5,
        "Largest jitter (second difference of windows over the image's deviation) under new "
        "weights, relative to that under the old.",
        minimum=1.0,
    )
    canary_spread: float = declare(
        0.3,
        "Smallest standard deviation over the image under new weights, relative to that under "
        "the old.",
        minimum=0.0,
        maximum=1.0,
    )
    canary_latency: float = declare(
        2.0,
        "Largest 95 % quantile (and median) of a step's duration under new weights, relative to "
        "that under the old.",
        minimum=1.0,
    )
    trace_windows: int = declare(
        12_000,
        "How many of the newest windows a trace keeps (service ~/trace); 96 bytes each, and about "
        "1.5 kB in its file.",
        minimum=1,
        maximum=1_000_000,
        at_runtime=True,
    )
    trace_folder: str = declare(
        "",
        "Folder for the files of ~/trace; empty takes that of ROS' logs (ROS_LOG_DIR, else "
        "~/.ros/log).",
        at_runtime=True,
    )
    autostart: bool = declare(
        True, "Configure and activate the node by itself; false waits for lifecycle calls."
    )

    def rules(self) -> list[str]:
        """Windows must fit the ring; a colour range and a shift must make sense."""
        problems = []
        if self.window_s > self.ring_s:
            problems.append(
                f"'window_s' ({self.window_s:g}) must not exceed 'ring_s' ({self.ring_s:g})"
            )
        for name in ("window_s", "hop_s"):
            microseconds = getattr(self, name) * 1e6
            if abs(microseconds - round(microseconds)) > 1e-3:
                problems.append(
                    f"'{name}' must be a whole number of microseconds, not {getattr(self, name)!r}"
                )
        # 13 bytes an event; half of the ring, so that a late step still finds its window whole.
        most_events = self.ring_mb * 1_000_000 // 13 // 2
        if self.window == "count" and self.window_events > most_events:
            problems.append(
                f"'window_events' ({self.window_events}) must not exceed {most_events}, half of "
                f"what 'ring_mb' ({self.ring_mb}) holds"
            )
        if self.precision == "int8" and not self.weights.endswith(".onnx"):
            problems.append(
                "'precision' int8 needs a file as 'weights' whose loss was measured; write it with "
                "`dae-ros export WEIGHTS --precision int8 --calibration CLIPS`"
            )
        if self.color_near_m >= self.color_far_m:
            problems.append(
                f"'color_near_m' ({self.color_near_m:g}) must be below "
                f"'color_far_m' ({self.color_far_m:g})"
            )
        if self.snapshots and not self.follow_snapshots:
            problems.append("'snapshots' is given without 'follow_snapshots'; set it to true")
        if self.shift != 0.0 and self.scale == 0.0:
            problems.append("'shift' is given without 'scale'; give both, or neither")
        return problems
