// A LiDAR sweep in a camera's picture: the nearest return of each pixel.
//
// Points are (points, 4) float32: x, y, z m in the LiDAR's frame, and intensity. The camera's frame is x right, y down,
// z forward; pixel (row, column) covers half a pixel around the whole numbers (row, column). A return counts if it is
// finite and at least `nearest_m` in front of the camera.
//
// Of several returns in a pixel the least (depth, index) stays: a 64-bit minimum, whatever the order of the threads.
// Three launches in one stream: project_clear, project_points, project_resolve.
#include "kernel.cuh"

struct ProjectParams {
  const float4* __restrict__ points_lidar;
  uint64* __restrict__ nearest;   // (height, width): bits of the depth << 32 | index of the point
  float* __restrict__ depth_m;    // (height, width): 0 without return
  float* __restrict__ intensity;  // (height, width): 0 without return
  int* __restrict__ index;        // (height, width): -1 without return
  float cam_SE3_lidar[12];        // rows of (rotation | translation in m)
  float fx_px, fy_px, cx_px, cy_px;
  float nearest_m;  // > 0
  int points, height, width;
};

constexpr uint64 NOTHING = 0xffffffffffffffffull;

// A thread a pixel.
extern "C" __global__ void __launch_bounds__(256) project_clear(const ProjectParams p) {
  const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
  if (pixel < p.height * p.width) p.nearest[pixel] = NOTHING;
}

// A thread a point.
extern "C" __global__ void __launch_bounds__(256) project_points(const ProjectParams p) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= p.points) return;
  const float4 point = p.points_lidar[i];
  const float* pose = p.cam_SE3_lidar;
  const float x = pose[0] * point.x + pose[1] * point.y + pose[2] * point.z + pose[3];
  const float y = pose[4] * point.x + pose[5] * point.y + pose[6] * point.z + pose[7];
  const float z = pose[8] * point.x + pose[9] * point.y + pose[10] * point.z + pose[11];
  if (!(z >= p.nearest_m && z < INFINITE)) return;
  const float column = floorf(p.fx_px * (x / z) + p.cx_px + 0.5f);
  const float row = floorf(p.fy_px * (y / z) + p.cy_px + 0.5f);
  if (!(column >= 0.0f && column < float(p.width) && row >= 0.0f && row < float(p.height))) return;
  // The bits of a positive float grow with it.
  atomicMin(&p.nearest[int(row) * p.width + int(column)], uint64(__float_as_uint(z)) << 32 | uint32(i));
}

// A thread a pixel.
extern "C" __global__ void __launch_bounds__(256) project_resolve(const ProjectParams p) {
  const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
  if (pixel >= p.height * p.width) return;
  const uint64 found = p.nearest[pixel];
  const bool any = found != NOTHING;
  const int i = any ? int(uint32(found)) : -1;
  p.depth_m[pixel] = any ? __uint_as_float(uint32(found >> 32)) : 0.0f;
  p.intensity[pixel] = any ? p.points_lidar[i].w : 0.0f;
  p.index[pixel] = i;
}
