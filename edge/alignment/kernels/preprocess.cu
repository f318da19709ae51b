// A camera's picture as a network's input: resized, in the network's colours, normalised, planar.
//
// Source: BGR (pictures, height, width, 3), or NV12 (pictures, height * 3 / 2, width): the luma plane, then U and V in
// turn at half the resolution; uint8. Both sizes of an NV12 picture are even, and a pixel has the chroma of its 2 x 2.
// Out: (pictures, 3, out_height, out_width).
//
// Where both ratios are whole, a pixel is the mean of its box (exact integer sums), else it is bilinear between pixel
// centres at halves, held at the border. Then, for the network's channel c of the three resized components k:
//   colour = min(max(sum_k colour[c][k] component[k] + colour[c][3], 0), 255);   stored = colour * gain[c] + bias[c]
// int8: rounded to even, plus zero_point, saturated. The launcher folds the quantiser's scale into gain and bias.
#include "kernel.cuh"

struct PreprocessParams {
  const uint8* __restrict__ source;
  void* __restrict__ out;
  int64 source_stride_bytes;  // between pictures
  int pitch_bytes;            // between rows of the source
  int pictures, height, width, out_height, out_width;
  int zero_point;
  float colour[12];  // (3, 4)
  float gain[3], bias[3];
};

struct Components {
  int first, second, third;  // B, G, R or Y, U, V
};

template <bool NV12>
__device__ __forceinline__ Components fetch(const PreprocessParams& p, const uint8* __restrict__ picture, int y,
                                            int x) {
  const uint8* row = picture + int64(y) * p.pitch_bytes;
  if (!NV12) return {row[x * 3], row[x * 3 + 1], row[x * 3 + 2]};
  const uint8* chroma = picture + int64(p.height + y / 2) * p.pitch_bytes + x / 2 * 2;
  return {row[x], chroma[0], chroma[1]};
}

__device__ __forceinline__ float between(int a, int b, float share) { return float(a) + float(b - a) * share; }

__device__ __forceinline__ void store(signed char* out, float value, int zero_point) {
  *out = static_cast<signed char>(fminf(fmaxf(rintf(value) + float(zero_point), -128.0f), 127.0f));
}
__device__ __forceinline__ void store(unsigned short* out, float value, int) { *out = half_bits(value); }
__device__ __forceinline__ void store(float* out, float value, int) { *out = value; }

// A thread an output pixel: block (32, 8), grid (x, y, picture).
template <bool NV12, typename T>
__device__ __forceinline__ void preprocess(const PreprocessParams& p) {
  const int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
  if (x >= p.out_width || y >= p.out_height) return;
  const uint8* picture = p.source + int64(blockIdx.z) * p.source_stride_bytes;
  float component[3];
  if (p.height % p.out_height == 0 && p.width % p.out_width == 0) {
    const int tall = p.height / p.out_height, wide = p.width / p.out_width;
    int sum[3] = {0, 0, 0};
    for (int v = y * tall; v < (y + 1) * tall; v++)
      for (int u = x * wide; u < (x + 1) * wide; u++) {
        const Components got = fetch<NV12>(p, picture, v, u);
        sum[0] += got.first, sum[1] += got.second, sum[2] += got.third;
      }
    for (int k = 0; k < 3; k++) component[k] = float(sum[k]) / float(tall * wide);
  } else {
    const float v = (float(y) + 0.5f) * (float(p.height) / float(p.out_height)) - 0.5f;
    const float u = (float(x) + 0.5f) * (float(p.width) / float(p.out_width)) - 0.5f;
    const float v_in = fminf(fmaxf(v, 0.0f), float(p.height - 1)), u_in = fminf(fmaxf(u, 0.0f), float(p.width - 1));
    const int top = int(v_in), left = int(u_in);
    const int bottom = min(top + 1, p.height - 1), right = min(left + 1, p.width - 1);
    const float down = v_in - float(top), across = u_in - float(left);
    const Components a = fetch<NV12>(p, picture, top, left), b = fetch<NV12>(p, picture, top, right);
    const Components c = fetch<NV12>(p, picture, bottom, left), d = fetch<NV12>(p, picture, bottom, right);
    const float upper[3] = {between(a.first, b.first, across), between(a.second, b.second, across),
                            between(a.third, b.third, across)};
    const float lower[3] = {between(c.first, d.first, across), between(c.second, d.second, across),
                            between(c.third, d.third, across)};
    for (int k = 0; k < 3; k++) component[k] = upper[k] + (lower[k] - upper[k]) * down;
  }
  T* out = static_cast<T*>(p.out) + (int64(blockIdx.z) * 3 * p.out_height + y) * p.out_width + x;
  for (int c = 0; c < 3; c++) {
    const float* row = p.colour + c * 4;
    const float seen = row[0] * component[0] + row[1] * component[1] + row[2] * component[2] + row[3];
    const float colour = fminf(fmaxf(seen, 0.0f), 255.0f);
    store(out + int64(c) * p.out_height * p.out_width, colour * p.gain[c] + p.bias[c], p.zero_point);
  }
}

extern "C" __global__ void __launch_bounds__(256) preprocess_bgr_int8(const PreprocessParams p) {
  preprocess<false, signed char>(p);
}
extern "C" __global__ void __launch_bounds__(256) preprocess_bgr_float16(const PreprocessParams p) {
  preprocess<false, unsigned short>(p);
}
extern "C" __global__ void __launch_bounds__(256) preprocess_bgr_float32(const PreprocessParams p) {
  preprocess<false, float>(p);
}
extern "C" __global__ void __launch_bounds__(256) preprocess_nv12_int8(const PreprocessParams p) {
  preprocess<true, signed char>(p);
}
extern "C" __global__ void __launch_bounds__(256) preprocess_nv12_float16(const PreprocessParams p) {
  preprocess<true, unsigned short>(p);
}
extern "C" __global__ void __launch_bounds__(256) preprocess_nv12_float32(const PreprocessParams p) {
  preprocess<true, float>(p);
}
