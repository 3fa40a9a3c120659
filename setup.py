"""Build description for pip and for colcon (ament_python).

What `ros2 run` and `ros2 launch` need lies below `lib/dae_ros` and `share`, installed as data
files: pip ignores `install_scripts` of setup.cfg, and keeps the mode bits of data files.
"""

from pathlib import Path
from xml.etree import ElementTree

from setuptools import find_packages, setup

NAME = "dae_ros"
HERE = Path(__file__).resolve().parent
VERSION = ElementTree.parse(HERE / "package.xml").findtext("version")
TORCH = "torch==2.13.0"
DATASETS = ["h5py", "hdf5plugin"]
ONNX = ["onnx", "onnxruntime", "onnxscript"]
OPENVINO = [*ONNX, "openvino"]
INT8 = [*OPENVINO, "nncf"]
TENSORBOARD = ["tensorboard"]


def tree(folder: str, *suffixes: str) -> list[str]:
    """Return the files of `folder` with one of the suffixes, relative to the repository root."""
    paths = (path for path in (HERE / folder).iterdir() if path.is_file())
    return sorted(
        str(path.relative_to(HERE)) for path in paths if not suffixes or path.suffix in suffixes
    )


setup(
    name=NAME,
    version=VERSION,
    description="Depth from event cameras on ROS 2, that keeps learning on the robot",
    license="Apache-2.0",
    maintainer="dae_ros maintainers",
    maintainer_email="maintainers@example.org",
    python_requires=">=3.10",
    packages=find_packages(include=["dae_ros", "dae_ros.*"]),
    package_data={NAME: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/dae_ros"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", tree("launch", ".py")),
        (f"share/{NAME}/config", tree("config", ".yaml", ".rviz", ".xml")),
        (f"share/{NAME}/config/train", tree("config/train", ".yaml")),
        (f"share/{NAME}/models", tree("models", ".yaml", ".safetensors", ".md")),
        (f"lib/{NAME}", tree("scripts/executables")),
    ],
    entry_points={"console_scripts": ["dae-ros = dae_ros.cli.main:main"]},
    # What the package imports apart from ROS and PyTorch; colcon leaves these to package.xml.
    # PyTorch is an extra, because which build fits is the machine's matter (docs/install.md).
    install_requires=[
        "aedat",
        "apsw",
        "av",
        'backports.zstd; python_version < "3.14"',
        "lz4",
        "numba",
        "numpy",
        "opencv-python-headless",
        "pyyaml",
        "rosbags>=0.11.6",
        "safetensors",
    ],
    extras_require={
        "cpu": [TORCH],
        "gpu": [TORCH, "torchvision==0.28.0", "timm"],
        "timm": ["timm"],
        "datasets": DATASETS,
        "onnx": ONNX,
        "openvino": OPENVINO,
        "int8": INT8,
        "tensorboard": TENSORBOARD,
        "test": [
            *DATASETS,
            *INT8,
            *TENSORBOARD,
            "hypothesis",
            "mypy~=2.4.1",
            "pytest<9",
            "pytest-randomly",
            "pytest-timeout",
            "pytest-xdist",
            "ruff~=0.17.5",
            "setuptools>=64",
            "transformers>=5,<6",  # an oracle for Depth Anything V2
            "types-PyYAML",
        ],
        "bench": ["evlib", "expelliarmus", "faery", "tonic"],
    },
    zip_safe=False,
)
