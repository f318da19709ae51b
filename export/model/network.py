"""All that is trained together."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from export.model.audio import AudioEncoder
from export.model.camera import CameraEncoder
from export.model.fusion import PAIRS, FuseNet
from export.model.labels import FACT_VALUES, MODALITIES
from export.model.layers import EMBEDDING
from export.model.lidar import LidarEncoder
from export.model.motion import MotionEncoder
from export.model.text import FactsTower, TextTower
from export.model.video import ClipEncoder


class Encoded(NamedTuple):
    """embeddings: (batch, 4, 192) unit length, in the order of MODALITIES. maps: of the camera. onsets: logits."""

    embeddings: Tensor
    maps: Tensor
    onsets: Tensor


class Network(nn.Module):
    """Encoders, towers, fusion, and what is only of use in training."""

    def __init__(self, strategy: str = "intermediate") -> None:
        super().__init__()
        self.camera, self.audio, self.motion, self.lidar = (
            CameraEncoder(), AudioEncoder(), MotionEncoder(), LidarEncoder(),
        )  # fmt: skip
        self.fuse = FuseNet(strategy)
        self.facts, self.text, self.clip = FactsTower(), TextTower(), ClipEncoder()
        self.own = nn.ModuleList([nn.Linear(EMBEDDING, FACT_VALUES) for _ in MODALITIES])
        self.temperature = nn.Parameter(torch.tensor(3.0))  # of InfoNCE, a logarithm
        self.pairs = len(MODALITIES) + len(PAIRS)  # each modality beside the facts, then each pair
        self.scale, self.bias = (
            nn.Parameter(torch.full((self.pairs,), 2.5)),
            nn.Parameter(torch.full((self.pairs,), -6.0)),
        )

    def encode(self, image: Tensor, pcm: Tensor, motion: Tensor, lidar: Tensor, fast: bool = False) -> Encoded:
        """Everything of the sensors; convolutions in bfloat16 while training, or where `fast` asks for it.

        Args:
            image: (batch, 384, 640, 3) uint8 BGR. pcm: (batch, 16000). motion: (batch, 12, 50). lidar:
                (batch, 2, 16, 256).
        """
        mel = self.audio.spectrum(pcm)
        fast = fast or self.training
        camera, maps = self.look(image, fast)
        with torch.autocast(image.device.type, torch.bfloat16, enabled=fast):
            audio, onsets = self.audio.encode(mel)
            parts = [camera, audio, self.motion(motion), self.lidar(lidar)]
        return Encoded(torch.stack([part.float() for part in parts], 1), maps, onsets.float())

    def look(self, image: Tensor, fast: bool = False) -> tuple[Tensor, Tensor]:
        """The camera's embedding and maps; image as in `encode`."""
        picture = image.permute(0, 3, 1, 2)  # rows of pixels as they lie are channels last
        with torch.autocast(image.device.type, torch.bfloat16, enabled=fast):
            camera, maps = self.camera(picture.to(torch.bfloat16 if fast else torch.float32) * (1.0 / 255.0))
        return camera.float(), maps.float()

    def features(self, image: Tensor, pcm: Tensor, motion: Tensor, lidar: Tensor) -> Tensor:
        """(batch, 4032): what each modality's embedding is made of, side by side."""
        picture = image.permute(0, 3, 1, 2).float() * (1.0 / 255.0)
        camera = self.camera.features(picture).features
        audio, _ = self.audio.features(self.audio.spectrum(pcm))
        return torch.cat([camera, audio, self.motion.features(motion), self.lidar.features(lidar)], 1)
