// Sound as log-mel: windows of 512 samples, their power spectrum, triangular bands, the logarithm.
//
// pcm is (clips, samples) float32, -1..1; window s covers samples s * hop - lead ..., silence where there are none.
// Out: (clips, bands, steps). Band q sums weight * power over count[q] bins from first[q]; its weights start at
// offset[q] in `weights`.
//   out = (log(floor_added ? x + floor : max(x, floor)) + shift) * gain
#include "kernel.cuh"

constexpr int WINDOW = 512, HALF = WINDOW / 2, BINS = HALF + 1;

struct LogmelParams {
  const float* __restrict__ pcm;
  const float* __restrict__ window;    // (512): Hann, with the gain of the spectrum in it
  const float2* __restrict__ twiddle;  // (257): cos, sin of -2 pi k / 512
  const int* __restrict__ first;       // (bands)
  const int* __restrict__ count;       // (bands)
  const int* __restrict__ offset;      // (bands)
  const float* __restrict__ weights;
  float* __restrict__ out;
  int clips, samples, steps, hop, lead, bands;
  int floor_added;
  float floor, shift, gain;
};

// A block of 128 threads a window: grid (steps, clips). The 512 real samples go as 256 complex ones (even, odd) through
// a radix-2 FFT, a butterfly a thread and stage; two bins a thread then part even from odd. Shared: 512 + 257 float32.
extern "C" __global__ void __launch_bounds__(128) logmel(const LogmelParams p) {
  const int step = blockIdx.x, clip = blockIdx.y, thread = threadIdx.x;
  if (step >= p.steps || clip >= p.clips) return;
  float2* z = block_shared<float2>();
  float* power = reinterpret_cast<float*>(z + HALF);
  const float* pcm = p.pcm + int64(clip) * p.samples;
  const int start = step * p.hop - p.lead;

  for (int k = thread; k < HALF; k += 128) {
    const int at = start + k * 2;
    const float even = at >= 0 && at < p.samples ? pcm[at] : 0.0f;
    const float odd = at + 1 >= 0 && at + 1 < p.samples ? pcm[at + 1] : 0.0f;
    z[__brev(k) >> 24] = make_float2(even * p.window[k * 2], odd * p.window[k * 2 + 1]);  // 8 bits, reversed
  }
  __syncthreads();
  for (int half = 1; half < HALF; half *= 2) {
    const int within = thread & (half - 1), top = (thread - within) * 2 + within, bottom = top + half;
    const float2 turn = p.twiddle[within * (HALF / half)], a = z[top], b = z[bottom];
    const float2 turned = make_float2(b.x * turn.x - b.y * turn.y, b.x * turn.y + b.y * turn.x);
    z[top] = make_float2(a.x + turned.x, a.y + turned.y);
    z[bottom] = make_float2(a.x - turned.x, a.y - turned.y);
    __syncthreads();
  }
  for (int k = thread; k < BINS; k += 128) {
    const float2 a = z[k & (HALF - 1)], b = z[(HALF - k) & (HALF - 1)], turn = p.twiddle[k];
    const float even_x = (a.x + b.x) * 0.5f, even_y = (a.y - b.y) * 0.5f;
    const float odd_x = (a.y + b.y) * 0.5f, odd_y = (b.x - a.x) * 0.5f;
    const float x = even_x + (odd_x * turn.x - odd_y * turn.y), y = even_y + (odd_x * turn.y + odd_y * turn.x);
    power[k] = x * x + y * y;
  }
  __syncthreads();
  for (int band = thread; band < p.bands; band += 128) {
    const float* weights = p.weights + p.offset[band];
    float sum = 0.0f;
    for (int k = 0; k < p.count[band]; k++) sum += weights[k] * power[p.first[band] + k];
    const float level = p.floor_added ? sum + p.floor : fmaxf(sum, p.floor);
    p.out[(int64(clip) * p.bands + band) * p.steps + step] = (logf(level) + p.shift) * p.gain;
  }
}
