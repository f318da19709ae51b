// Samples of several rates at the instants of frames, and sound at another rate.
//
// Stamps are int64 nanoseconds of one clock, ascending, and differ by less than 2^62.
#include "kernel.cuh"

constexpr int STREAMS = 8;        // in one launch
constexpr int TILE = 256;         // instants a block
constexpr int SOUND_TILE = 1024;  // output samples a block

struct ResampleStream {
  const int64* __restrict__ stamps_ns;  // (count)
  const float* __restrict__ values;     // (count, channels)
  float* __restrict__ out;              // (instants, channels)
  uint8* __restrict__ valid;            // (instants): 1 where the nearest sample is within the tolerance
  int64 tolerance_ns;
  int count, channels, nearest;  // nearest: take the nearest sample, the older of two equally near; else a line
};

struct ResampleParams {
  const int64* __restrict__ instants_ns;  // (instants), in any order
  int instants, streams;
  ResampleStream stream[STREAMS];
};

// A block takes TILE instants of stream blockIdx.y: first a thread an instant finds its neighbours, then the threads
// share the (instant, channel) values, so that neighbours write neighbours. Before the first sample and after the last
// one that sample is held; without any the values are 0 and not valid. Shared: TILE x (int32, float32).
extern "C" __global__ void __launch_bounds__(TILE) resample(const ResampleParams p) {
  const ResampleStream& s = p.stream[blockIdx.y];
  const int64 start = int64(blockIdx.x) * TILE;
  const int here = int(min(int64(TILE), p.instants - start));
  int* at = block_shared<int>();
  float* weight = reinterpret_cast<float*>(at + TILE);

  if (int(threadIdx.x) < here) {
    const int64 instant_ns = p.instants_ns[start + threadIdx.x];
    int low = 0, high = s.count;  // the first sample after the instant
    while (low < high) {
      const int middle = (low + high) / 2;
      if (s.stamps_ns[middle] <= instant_ns)
        low = middle + 1;
      else
        high = middle;
    }
    const int older = max(low - 1, 0), newer = min(low, s.count - 1);
    int from = older;
    float share = 0.0f;  // of the newer
    bool valid = false;
    if (s.count > 0) {
      const int64 after_ns = instant_ns - s.stamps_ns[older], before_ns = s.stamps_ns[newer] - instant_ns;
      const bool inside = older != newer;
      const int64 apart_ns = inside ? min(after_ns, before_ns) : max(after_ns, before_ns);  // one of these is negative
      valid = apart_ns <= s.tolerance_ns;
      if (inside && s.nearest) from = before_ns < after_ns ? newer : older;
      if (inside && !s.nearest) share = float(after_ns) / float(after_ns + before_ns);
    }
    at[threadIdx.x] = from;
    weight[threadIdx.x] = share;
    s.valid[start + threadIdx.x] = valid;
  }
  __syncthreads();
  for (int k = threadIdx.x; k < here * s.channels; k += TILE) {
    const int row = k / s.channels, channel = k - row * s.channels;
    float value = 0.0f;
    if (s.count > 0) {
      const float* from = s.values + int64(at[row]) * s.channels + channel;
      const float share = weight[row];
      value = *from;
      if (share > 0.0f) value += (from[s.channels] - value) * share;
    }
    s.out[start * s.channels + k] = value;
  }
}

struct SoundParams {
  const short* __restrict__ pcm;  // (count) int16, one channel
  float* __restrict__ out;        // (samples) -1..1
  int64 count, samples;
  int64 phase;        // of the first output sample, in 1/out_hz of an input sample
  int in_hz, out_hz;  // both at most 2^21, so that a tile's phases fit 32 bits
};

// Output sample k lies at input position (phase + k in_hz) / out_hz: exact for any length. A line between the two
// neighbours; samples outside of the recording are silence. A thread takes every TILE-th sample of its block's tile.
// The one 64-bit division of a tile is done by its first thread. Shared: int64 (whole samples), uint32 (the rest).
extern "C" __global__ void __launch_bounds__(TILE) resample_sound(const SoundParams p) {
  const int64 start = int64(blockIdx.x) * SOUND_TILE;
  int64* whole = block_shared<int64>();
  uint32* rest = reinterpret_cast<uint32*>(whole + 1);
  if (threadIdx.x == 0) {
    const int64 phase = p.phase + start * p.in_hz;
    int64 floor = phase / p.out_hz;
    if (floor * p.out_hz > phase) floor--;
    *whole = floor;
    *rest = uint32(phase - floor * p.out_hz);
  }
  __syncthreads();
  for (int k = threadIdx.x; k < SOUND_TILE && start + k < p.samples; k += TILE) {
    const uint32 phase = *rest + uint32(k) * uint32(p.in_hz), steps = phase / uint32(p.out_hz);
    const float share = float(phase - steps * uint32(p.out_hz)) / float(p.out_hz);
    const int64 i = *whole + steps;
    const float older = i >= 0 && i < p.count ? float(p.pcm[i]) : 0.0f;
    const float newer = i + 1 >= 0 && i + 1 < p.count ? float(p.pcm[i + 1]) : 0.0f;
    p.out[start + k] = (older + (newer - older) * share) * (1.0f / 32768.0f);
  }
}
