/* A simulated libcuda.so.1 for tests: one GPU whose memory is the host's and whose only kernel is `add`.

   Streams hold what is queued until somebody waits, so that a missing wait shows. A call that the simulation lacks is
   CUDA_ERROR_NOT_FOUND. Build: cc -shared -fPIC -o libcuda.so.1 simulated_libcuda.c */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, INVALID_VALUE = 1, CAPTURING = 900, NOT_FOUND = 500, MOST = 64 };
typedef struct { int kernel; void *to; const void *from; size_t size; } Op;
typedef struct { Op ops[MOST]; int count; } Graph;
typedef struct { Graph queued, captured; int capturing; } Stream;
static int allocated; /* device and pinned blocks that nobody has freed */

static int add(Graph *graph, Op op) {
  if (graph->count == MOST) return INVALID_VALUE;
  graph->ops[graph->count++] = op;
  return OK;
}
static int queue(Stream *stream, Op op) {
  return add(stream->capturing ? &stream->captured : &stream->queued, op);
}
static void perform(Op op) {
  if (!op.kernel) { memcpy(op.to, op.from, op.size); return; }
  for (size_t i = 0; i < op.size; i++) ((float *)op.to)[i] += ((const float *)op.from)[i];
}
static int new_block(void **out, size_t size) { allocated++; return (*out = calloc(1, size)) ? OK : 2; }
static int end_block(void *block) { if (!block) return INVALID_VALUE; allocated--; free(block); return OK; }

int cuInit(unsigned flags) { return flags ? INVALID_VALUE : OK; }
int cuDriverGetVersion(int *version) { *version = 13020; return OK; }
int cuDeviceGet(int *device, int index) { *device = 7; return index ? 101 : OK; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "Simulated", size); return device == 7 ? OK : 101; }
int cuDeviceTotalMem_v2(size_t *size, int device) { *size = (size_t)6 << 30; return OK; }
int cuDeviceGetAttribute(int *value, int which, int device) { *value = which == 75 ? 8 : which == 76 ? 7 : -1; return OK; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = (void *)0x70; return OK; }
int cuDevicePrimaryCtxRelease_v2(int device) { return device == 7 ? OK : INVALID_VALUE; }
int cuCtxSetCurrent(void *context) { return context == (void *)0x70 ? OK : INVALID_VALUE; }
/* pycuda's own housekeeping */
int cuCtxPushCurrent_v2(void *context) { return cuCtxSetCurrent(context); }
int cuCtxPopCurrent_v2(void **context) { *context = (void *)0x70; return OK; }
int cuCtxGetDevice(int *device) { *device = 7; return OK; }
int cuCtxSynchronize(void) { return OK; }
int cuDeviceGetCount(int *count) { *count = 1; return OK; }
int cuDeviceComputeCapability(int *major, int *minor, int device) { *major = 8; *minor = 7; return OK; }
int cuFuncSetBlockShape(void *function, int x, int y, int z) { return OK; }
int cuModuleUnload(void *module) { return OK; }
int cuMemAlloc_v2(void **out, size_t size) { return size ? new_block(out, size) : INVALID_VALUE; }
int cuMemFree_v2(void *block) { return end_block(block); }
int cuMemHostAlloc(void **out, size_t size, unsigned flags) { return new_block(out, size); }
int cuMemFreeHost(void *block) { return end_block(block); }
int cuStreamCreate(Stream **out, unsigned flags) {
  *out = calloc(1, sizeof **out);
  return flags == 1 ? OK : INVALID_VALUE; /* CU_STREAM_NON_BLOCKING */
}
int cuStreamDestroy_v2(Stream *stream) { free(stream); return OK; }
int cuStreamSynchronize(Stream *stream) {
  if (stream->capturing) return CAPTURING;
  for (int i = 0; i < stream->queued.count; i++) perform(stream->queued.ops[i]);
  stream->queued.count = 0;
  return OK;
}
int cuMemcpyHtoDAsync_v2(void *to, const void *from, size_t size, Stream *stream) {
  return queue(stream, (Op){0, to, from, size});
}
int cuMemcpyDtoHAsync_v2(void *to, const void *from, size_t size, Stream *stream) {
  return queue(stream, (Op){0, to, from, size});
}
int cuStreamBeginCapture_v2(Stream *stream, int mode) {
  if (mode != 1 || stream->capturing) return INVALID_VALUE; /* CU_STREAM_CAPTURE_MODE_THREAD_LOCAL */
  stream->capturing = 1;
  stream->captured.count = 0;
  return OK;
}
int cuStreamEndCapture(Stream *stream, Graph **out) {
  if (!stream->capturing) return INVALID_VALUE;
  stream->capturing = 0;
  *out = malloc(sizeof **out);
  **out = stream->captured;
  return OK;
}
int cuGraphInstantiateWithFlags(Graph **out, Graph *graph, unsigned long long flags) {
  *out = malloc(sizeof **out);
  **out = *graph;
  return flags ? INVALID_VALUE : OK;
}
int cuGraphDestroy(Graph *graph) { free(graph); return OK; }
int cuGraphExecDestroy(Graph *graph) { free(graph); return OK; }
int cuGraphLaunch(Graph *graph, Stream *stream) {
  int status = OK;
  for (int i = 0; i < graph->count && !status; i++) status = queue(stream, graph->ops[i]);
  return status;
}
int cuEventCreate(int **out, unsigned flags) { *out = calloc(1, sizeof **out); return OK; }
int cuEventRecord(int *event, Stream *stream) { *event = stream->queued.count; return OK; }
int cuEventElapsedTime_v2(float *ms, int *start, int *end) { *ms = (float)(*end - *start); return OK; }
int cuEventElapsedTime(float *ms, int *start, int *end) { return cuEventElapsedTime_v2(ms, start, end); }
int cuEventDestroy_v2(int *event) { free(event); return OK; }
int cuModuleLoadData(void **module, const char *image) { *module = (void *)image; return strncmp(image, "PTX", 4) ? 200 : OK; }
int cuModuleLoadDataEx(void **module, const char *image, unsigned count, void *options, void **values) {
  return cuModuleLoadData(module, image); /* the options are log buffers */
}
int cuModuleGetFunction(void **function, void *module, const char *name) {
  *function = (void *)0x99;
  return strcmp(name, "add") ? NOT_FOUND : OK;
}
/* add(float *to, const float *from, int size), in one row of blocks */
int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, Stream *stream, void **arguments, void **extra) {
  char *packed = extra ? extra[1] : NULL; /* pycuda packs them: CU_LAUNCH_PARAM_BUFFER_POINTER, buffer, ... */
  void *to = *(void **)(packed ? packed : arguments[0]), *from = *(void **)(packed ? packed + 8 : arguments[1]);
  int size = *(int32_t *)(packed ? packed + 16 : arguments[2]);
  if (function != (void *)0x99 || gx * bx < (unsigned)size || gy * gz * by * bz != 1 || shared) return INVALID_VALUE;
  return queue(stream, (Op){1, to, from, (size_t)size});
}
int cuGetErrorName(int status, const char **name) { *name = "CUDA_ERROR_SIMULATED"; return OK; }
int cuGetErrorString(int status, const char **text) { *text = "simulated"; return OK; }
int simulated_allocated(void) { return allocated; }

int cuGetProcAddress_v2(const char *name, void **out, int version, uint64_t flags, int *found) {
#define IS(word, function) if (!strcmp(name, word)) { *out = (void *)function; if (found) *found = 0; return OK; }
  IS("cuInit", cuInit) IS("cuDriverGetVersion", cuDriverGetVersion) IS("cuDeviceGet", cuDeviceGet)
  IS("cuDeviceGetName", cuDeviceGetName) IS("cuDeviceTotalMem", cuDeviceTotalMem_v2)
  IS("cuDeviceGetAttribute", cuDeviceGetAttribute) IS("cuDevicePrimaryCtxRetain", cuDevicePrimaryCtxRetain)
  IS("cuDevicePrimaryCtxRelease", cuDevicePrimaryCtxRelease_v2) IS("cuCtxSetCurrent", cuCtxSetCurrent)
  IS("cuMemAlloc", cuMemAlloc_v2) IS("cuMemFree", cuMemFree_v2) IS("cuMemHostAlloc", cuMemHostAlloc)
  IS("cuMemFreeHost", cuMemFreeHost) IS("cuStreamCreate", cuStreamCreate) IS("cuStreamDestroy", cuStreamDestroy_v2)
  IS("cuStreamSynchronize", cuStreamSynchronize) IS("cuMemcpyHtoDAsync", cuMemcpyHtoDAsync_v2)
  IS("cuMemcpyDtoHAsync", cuMemcpyDtoHAsync_v2) IS("cuStreamBeginCapture", cuStreamBeginCapture_v2)
  IS("cuStreamEndCapture", cuStreamEndCapture) IS("cuGraphInstantiate", cuGraphInstantiateWithFlags)
  IS("cuGraphInstantiateWithFlags", cuGraphInstantiateWithFlags) IS("cuGraphDestroy", cuGraphDestroy)
  IS("cuGraphExecDestroy", cuGraphExecDestroy) IS("cuGraphLaunch", cuGraphLaunch) IS("cuEventCreate", cuEventCreate)
  IS("cuEventRecord", cuEventRecord) IS("cuEventElapsedTime", cuEventElapsedTime) IS("cuEventDestroy", cuEventDestroy_v2)
  IS("cuModuleLoadData", cuModuleLoadData) IS("cuModuleGetFunction", cuModuleGetFunction)
  IS("cuLaunchKernel", cuLaunchKernel) IS("cuGetErrorName", cuGetErrorName) IS("cuGetErrorString", cuGetErrorString)
  IS("cuGetProcAddress", cuGetProcAddress_v2)
  *out = NULL;
  if (found) *found = 1;
  return NOT_FOUND;
}
