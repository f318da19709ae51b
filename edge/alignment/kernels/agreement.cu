// How much the modalities of a FrameSet agree: the cosine between the embeddings of every two that are present.
//
// embeddings is (sets, modalities, size) float32, present (sets, modalities) uint8. Out: (sets, pairs) float32 with the
// pairs (0,1), (0,2) ... (1,2) ...; 0 where one is absent or of length 0.
#include "kernel.cuh"

struct AgreementParams {
  const float* __restrict__ embeddings;
  const uint8* __restrict__ present;
  float* __restrict__ cosine;
  int sets, modalities, size;
};

// The sum over the warp, the same in each lane: halves are added in a fixed order.
__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
  for (int apart = 16; apart; apart /= 2) value += __shfl_xor_sync(WHOLE_WARP, value, apart);
  return value;
}

// Block (32, warps): a warp a pair of modalities of a set; a lane sums every 32nd component.
extern "C" __global__ void __launch_bounds__(256) agreement(const AgreementParams p) {
  const int pairs = p.modalities * (p.modalities - 1) / 2;
  const int64 task = int64(blockIdx.x) * blockDim.y + threadIdx.y;
  if (task >= int64(p.sets) * pairs) return;
  const int64 set = task / pairs;
  int left = 0, right = int(task - set * pairs) + 1;
  while (right >= p.modalities) left++, right += left + 1 - p.modalities;
  const uint8* present = p.present + set * p.modalities;
  const float* a = p.embeddings + (set * p.modalities + left) * p.size;
  const float* b = p.embeddings + (set * p.modalities + right) * p.size;
  float cosine = 0.0f;
  if (present[left] && present[right]) {  // the same for the whole warp
    float aa = 0.0f, bb = 0.0f, ab = 0.0f;
    for (int d = threadIdx.x; d < p.size; d += 32) {
      aa += a[d] * a[d];
      bb += b[d] * b[d];
      ab += a[d] * b[d];
    }
    aa = warp_sum(aa), bb = warp_sum(bb), ab = warp_sum(ab);
    const float length = sqrtf(aa) * sqrtf(bb);
    if (length > 0.0f) cosine = ab / length;
  }
  if (threadIdx.x == 0) p.cosine[task] = cosine;
}
