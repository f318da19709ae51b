"""YAMNet over clips: MODEL.tflite CLIPS.npz (arr_0 on, float32 at 16 kHz) -> SCORES.npy (clips, 521), the highest."""

import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter

SAMPLES, HOP = 15600, 7800

model, clips, out = sys.argv[1:]
interpreter = Interpreter(model_path=model)
interpreter.allocate_tensors()
given, said = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
scores = []
with np.load(clips) as sounds:
    for i in range(len(sounds.files)):
        pcm = sounds[f"arr_{i}"]
        pcm = np.pad(pcm, (0, max(SAMPLES - len(pcm), 0)))
        windows = []
        for at in range(0, len(pcm) - SAMPLES + 1, HOP):
            interpreter.set_tensor(given, pcm[at : at + SAMPLES].astype(np.float32))
            interpreter.invoke()
            windows.append(interpreter.get_tensor(said)[0].copy())
        scores.append(np.max(windows, 0))
np.save(out, np.array(scores, np.float32))
