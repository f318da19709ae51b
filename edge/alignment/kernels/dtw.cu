// Dynamic time warping of many pairs of sequences, inside a band of allowed cells.
//
// Frames: a is (pairs, rows, channels), b is (pairs, columns, channels), float32, finite, any unit; pair q uses its
// first a_length[q] rows and b_length[q] columns. first and last, (pairs or 1, rows) int32, are the first and the last
// column that row i may use (both included; a band in time, made on the host); cells outside cost +inf.
//
//   c[i,j] = sum over channels of (a[i] - b[j])^2, or of |a[i] - b[j]|
//   D[0,0] = w c,   D[i,j] = min(D[i-1,j-1] + w c, D[i-1,j] + c, D[i,j-1] + c),   w = 1 (symmetric1) or 2 (symmetric2)
//
// open_begin: D[0,j] = w c for every j. open_end: the answer is the least D[n-1,j], the smallest j among equals; else
// it is D[n-1,m-1]. Of equal sums the diagonal wins, then up (i-1), then left (j-1). A pair without path, or of length
// 0, costs +inf and ends at -1. Ref: Sakoe & Chiba 1978 (step patterns), Mueller 2007 ch. 4 (open ends).
#include "kernel.cuh"

struct DtwParams {
  const float* __restrict__ a;
  const float* __restrict__ b;
  const int* __restrict__ a_length;  // (pairs), 0..rows
  const int* __restrict__ b_length;  // (pairs), 0..columns
  const int* __restrict__ first;
  const int* __restrict__ last;
  float* __restrict__ cost;   // (pairs)
  int* __restrict__ end;      // (pairs): column where the path ends, -1 without path
  uint32* __restrict__ path;  // (pairs, rows, ceil(columns / 16)): 2 bits a cell, low bits first, a Move each
  int pairs, rows, columns, channels;
  int band_stride;  // rows, or 0 where all pairs share one band
  int absolute, symmetric2, open_begin, open_end;
};

struct DtwTraceParams {
  const uint32* __restrict__ path;
  const int* __restrict__ a_length;
  const int* __restrict__ end;
  int* __restrict__ steps;  // (pairs, rows + columns, 2): the last count[q] of them are the path's (i, j), ascending
  int* __restrict__ count;  // (pairs): 0 without path
  int pairs, rows, columns;
};

enum Move { START = 0, DIAGONAL = 1, UP = 2, LEFT = 3 };

constexpr int STRIP = 32;  // columns a lane at most: 32 lanes cover 1024

template <bool ABSOLUTE>
__device__ __forceinline__ float local_cost(const float* __restrict__ a, const float* __restrict__ b, int channels) {
  float sum = 0.0f;
  for (int d = 0; d < channels; d++) {
    const float apart = a[d] - b[d];
    sum += ABSOLUTE ? fabsf(apart) : apart * apart;
  }
  return sum;
}

// The columns lo..hi of a strip that starts at `left`, as bits.
__device__ __forceinline__ uint32 strip_bits(int lo, int hi, int left, int strip) {
  const int from = max(lo - left, 0), to = min(hi - left, strip - 1);
  return from <= to ? (0xffffffffu << from) & (0xffffffffu >> (31 - to)) : 0u;
}

// One row of a lane's strip: `above` holds the row before and becomes this one. Bit k of `starts` says that a path may
// begin there (in row 0 only; FIRST_ROW false spares the question). Returns the last column.
template <bool ABSOLUTE, bool FIRST_ROW>
__device__ __forceinline__ float strip_row(const float (&own)[STRIP], float a, float (&above)[STRIP], int strip,
                                           uint32 allowed, uint32 starts, float weight, float corner, float left) {
  float diagonal = corner;
#pragma unroll
  for (int k = 0; k < STRIP; k++) {
    if (k % 4 == 0 && k >= strip) break;  // the same for the whole warp
    const float apart = a - own[k], c = ABSOLUTE ? fabsf(apart) : apart * apart;
    float value = fminf(fmaf(weight, c, diagonal), fminf(above[k], left) + c);  // weight * c is exact
    if (FIRST_ROW && starts >> k & 1u) value = weight * c;
    if (!(allowed >> k & 1u)) value = INFINITE;
    diagonal = above[k];
    above[k] = left = value;
  }
  return left;
}

// The same for any number of channels, whose sums outweigh the rest; b is read through the cache.
__device__ __forceinline__ float strip_row(const float* __restrict__ b, const float* __restrict__ a, int channels,
                                           bool absolute, float (&above)[STRIP], int strip, uint32 allowed,
                                           uint32 starts, float weight, float corner, float left) {
  float diagonal = corner;
#pragma unroll
  for (int k = 0; k < STRIP; k++) {
    if (k % 4 == 0 && k >= strip) break;
    float value = INFINITE;
    if (allowed >> k & 1u) {
      float c = 0.0f;
#pragma unroll 1
      for (int d = 0; d < channels; d++) {
        const float apart = a[d] - b[k * channels + d];
        c += fabsf(apart) * (absolute ? 1.0f : fabsf(apart));
      }
      value = fminf(fmaf(weight, c, diagonal), fminf(above[k], left) + c);
      if (starts >> k & 1u) value = weight * c;
    }
    diagonal = above[k];
    above[k] = left = value;
  }
  return left;
}

// One warp, one pair: the lane holds a strip of columns and works a row behind the lane on its left, whose last column
// comes by shuffle.
template <bool UNIVARIATE, bool ABSOLUTE>
__device__ __forceinline__ void warp_pair(const DtwParams& p, int pair, int lane) {
  const int n = p.a_length[pair], m = p.b_length[pair];
  const int strip = (m + 127) / 128 * 4, left_column = lane * strip;
  const int lanes = n && m ? (m + strip - 1) / strip : 0;
  const float* a = p.a + int64(pair) * p.rows * p.channels;
  const float* b = p.b + int64(pair) * p.columns * p.channels;
  const int* first = p.first + int64(pair) * p.band_stride;
  const int* last = p.last + int64(pair) * p.band_stride;
  const float weight = p.symmetric2 ? 2.0f : 1.0f;
  const uint32 starts = p.open_begin ? 0xffffffffu : lane == 0;

  float above[STRIP], own[STRIP];
#pragma unroll
  for (int k = 0; k < STRIP; k++) {
    above[k] = INFINITE;
    own[k] = UNIVARIATE && left_column + k < m ? b[left_column + k] : 0.0f;
  }
  float edge = INFINITE, corner = INFINITE;  // D[i, last of the strip], D[i-1, the column left of the strip]
  for (int step = 0; step < n + lanes - 1; step++) {
    float left = __shfl_up_sync(WHOLE_WARP, edge, 1);
    if (lane == 0) left = INFINITE;
    const int i = step - lane;
    if (i >= 0 && i < n) {
      const uint32 allowed = strip_bits(first[i], min(last[i], m - 1), left_column, strip);
      if (!UNIVARIATE)
        edge = strip_row(b + int64(left_column) * p.channels, a + int64(i) * p.channels, p.channels, p.absolute, above,
                         strip, allowed, i ? 0u : starts, weight, corner, left);
      else if (i == 0)
        edge = strip_row<ABSOLUTE, true>(own, a[i], above, strip, allowed, starts, weight, corner, left);
      else
        edge = strip_row<ABSOLUTE, false>(own, a[i], above, strip, allowed, 0u, weight, corner, left);
    }
    corner = left;
  }

  float best = INFINITE;
  int at = -1;
#pragma unroll
  for (int k = 0; k < STRIP; k++) {
    const int j = left_column + k;
    if (k < strip && (j == m - 1 || (p.open_end && j < m)) && above[k] < best) best = above[k], at = j;
  }
#pragma unroll
  for (int apart = 16; apart; apart /= 2) {
    const float other = __shfl_xor_sync(WHOLE_WARP, best, apart);
    const int other_at = __shfl_xor_sync(WHOLE_WARP, at, apart);
    if (other < best || (other == best && uint32(other_at) < uint32(at))) best = other, at = other_at;  // -1 loses
  }
  if (lane == 0) p.cost[pair] = best, p.end[pair] = at;
}

// Cost only, one channel, at most 1024 columns. Block (32, warps): a warp a pair; no shared memory.
extern "C" __global__ void __launch_bounds__(128, 3) dtw_warp(const DtwParams p) {
  const int pair = blockIdx.x * blockDim.y + threadIdx.y;
  if (pair >= p.pairs) return;
  if (p.absolute)
    warp_pair<true, true>(p, pair, threadIdx.x);
  else
    warp_pair<true, false>(p, pair, threadIdx.x);
}

// Cost only, any number of channels, at most 1024 columns.
extern "C" __global__ void __launch_bounds__(128, 4) dtw_warp_channels(const DtwParams p) {
  const int pair = blockIdx.x * blockDim.y + threadIdx.y;
  if (pair >= p.pairs) return;
  warp_pair<false, false>(p, pair, threadIdx.x);  // asks p.absolute as it goes
}

// One block, one pair: a thread takes every blockDim-th row of each anti-diagonal. Shared: three anti-diagonals by row
// (float32), and with PATH the word that each row is filling. A row stays with its thread, so only the diagonals need
// the barrier.
template <bool ABSOLUTE, bool PATH>
__device__ __forceinline__ void wavefront(const DtwParams& p, int pair) {
  const int n = p.a_length[pair], m = p.b_length[pair];
  if (n == 0 || m == 0) {
    if (threadIdx.x == 0) p.cost[pair] = INFINITE, p.end[pair] = -1;
    return;  // the whole block
  }
  const float* a = p.a + int64(pair) * p.rows * p.channels;
  const float* b = p.b + int64(pair) * p.columns * p.channels;
  const int* first = p.first + int64(pair) * p.band_stride;
  const int* last = p.last + int64(pair) * p.band_stride;
  const int words = (p.columns + 15) / 16;
  uint32* path = p.path + int64(pair) * p.rows * words;
  const float weight = p.symmetric2 ? 2.0f : 1.0f;

  float *now = block_shared<float>(), *before = now + p.rows, *before_that = before + p.rows;
  uint32* filling = reinterpret_cast<uint32*>(before_that + p.rows);
  float best = INFINITE;
  int at = -1;
  for (int sum = 0; sum <= n + m - 2; sum++) {  // cells with i + j == sum
    for (int i = threadIdx.x; i <= min(sum, n - 1); i += blockDim.x) {
      const int j = sum - i;
      if (j >= m) continue;
      float value = INFINITE;
      uint32 move = START;
      if (first[i] <= j && j <= last[i]) {
        const float c = local_cost<ABSOLUTE>(a + int64(i) * p.channels, b + int64(j) * p.channels, p.channels);
        if (i == 0 && (j == 0 || p.open_begin)) {
          value = weight * c;
        } else {
          const float straight = i && j ? fmaf(weight, c, before_that[i - 1]) : INFINITE;
          const float up = i ? before[i - 1] : INFINITE, left = j ? before[i] : INFINITE;
          value = fminf(straight, fminf(up, left) + c);
          move = straight <= value ? DIAGONAL : up <= left ? UP : LEFT;
          if (value == INFINITE) move = START;
        }
      }
      now[i] = value;
      if (PATH) {
        const uint32 word = (j % 16 ? filling[i] : 0u) | move << (j % 16 * 2);
        filling[i] = word;
        if (j % 16 == 15 || j == m - 1) path[int64(i) * words + j / 16] = word;
      }
      if (i == n - 1 && (p.open_end || j == m - 1) && value < best) best = value, at = j;
    }
    __syncthreads();
    float* const oldest = before_that;
    before_that = before, before = now, now = oldest;
  }
  if ((n - 1) % int(blockDim.x) == int(threadIdx.x)) p.cost[pair] = best, p.end[pair] = at;
}

// Cost only, any number of columns.
extern "C" __global__ void __launch_bounds__(256) dtw_wavefront(const DtwParams p) {
  const int pair = blockIdx.x;
  if (pair >= p.pairs) return;
  if (p.absolute)
    wavefront<true, false>(p, pair);
  else
    wavefront<false, false>(p, pair);
}

// Cost and, for every cell of the pair's own rows and columns, the move that led to it (START where none did).
extern "C" __global__ void __launch_bounds__(256) dtw_wavefront_path(const DtwParams p) {
  const int pair = blockIdx.x;
  if (pair >= p.pairs) return;
  if (p.absolute)
    wavefront<true, true>(p, pair);
  else
    wavefront<false, true>(p, pair);
}

// One thread, one pair: walks the moves back and fills `steps` from its end, so that they ascend.
extern "C" __global__ void __launch_bounds__(128) dtw_trace(const DtwTraceParams p) {
  const int pair = blockIdx.x * blockDim.x + threadIdx.x;
  if (pair >= p.pairs) return;
  const int words = (p.columns + 15) / 16, most = p.rows + p.columns;
  const uint32* path = p.path + int64(pair) * p.rows * words;
  int* steps = p.steps + int64(pair) * most * 2;
  int i = p.a_length[pair] - 1, j = p.end[pair], at = most;
  while (i >= 0 && j >= 0 && at > 0) {
    at--;
    steps[at * 2] = i, steps[at * 2 + 1] = j;
    const uint32 move = path[int64(i) * words + j / 16] >> (j % 16 * 2) & 3u;
    if (move == START) break;
    i -= move != LEFT, j -= move != UP;
  }
  p.count[pair] = most - at;
}
