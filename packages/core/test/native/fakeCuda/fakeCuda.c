// SPDX-License-Identifier: Apache-2.0
// A CUDA driver for tests without a GPU: device memory is malloc, and the work of a stream runs only when something
// waits for it, so that staging memory reused too early, a missing wait or a wrong order shows as wrong bytes.
// Every call is a line in the file that FAKE_CUDA_LOG names. Its one kernel, `store`, takes {u64 address; u32 value;
// u32 pad} and stores the value. Built by fakeCuda.ts; -DFAKE_OLD, -DFAKE_TENSOR_MAPS, -DFAKE_NO_DEVICE and -DFAKE_STUB make
// other drivers.
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define API __attribute__((visibility("default"))) int
#define OK 0
#define INVALID_VALUE 1
#define OUT_OF_MEMORY 2
// FAKE_CUDA_MEMORY, MiB, where a program needs more.
#define CAPACITY ((uint64_t)atoi(getenv("FAKE_CUDA_MEMORY") ? getenv("FAKE_CUDA_MEMORY") : "64") << 20)

typedef unsigned long long ptr_t;
typedef struct Stream Stream;
typedef struct Event {
  Stream *stream;
  size_t position;
} Event;
typedef struct Op {
  enum { COPY, FILL, FREE, RECORD, WAIT, STORE } kind;
  uint8_t *dst;
  const uint8_t *src;
  size_t bytes;
  uint32_t value, width;
  Event *event;
  Stream *awaited;
  size_t position;
} Op;
typedef struct Graph {
  Op *ops;
  size_t count;
} Graph;
struct Stream {
  Graph queue;
  size_t done;
  Graph *capture;
  int invalidated;
};
typedef struct Block {
  uint8_t *base;
  size_t bytes;
  struct Block *next;
} Block;

static pthread_mutex_t lock;
__attribute__((constructor)) static void init_lock(void) {
  pthread_mutexattr_t attr;
  pthread_mutexattr_init(&attr);
  pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
  pthread_mutex_init(&lock, &attr);
}

static char contexts[2];
static int retained[2];
static _Thread_local void *current;
static Block *blocks;
static size_t used_bytes;
static int live_pinned, live_events, live_streams, live_graphs, live_execs, live_modules, sticky;
static Stream *all_streams[256];
static uint64_t threshold;

static void note(const char *format, ...) {
  const char *path = getenv("FAKE_CUDA_LOG");
  if (!path) return;
  char line[512];
  va_list args;
  va_start(args, format);
  vsnprintf(line, sizeof line - 1, format, args);
  va_end(args);
  strcat(line, "\n");
  FILE *file = fopen(path, "a");
  fputs(line, file);
  fclose(file);
}

static Block *block_of(const void *address, size_t bytes) {
  const uint8_t *p = address;
  for (Block *b = blocks; b; b = b->next)
    if (p >= b->base && p + bytes <= b->base + b->bytes) return b;
  return NULL;
}

/** Not with FAKE_CUDA_UNTOUCHED, for programs of much memory: pages that nothing writes cost nothing. */
static void poison(Block *b, int byte) {
  if (!getenv("FAKE_CUDA_UNTOUCHED")) memset(b->base, byte, b->bytes);
}

static void free_block(const void *address) {
  for (Block **at = &blocks; *at; at = &(*at)->next) {
    Block *b = *at;
    if (b->base != address) continue;
    *at = b->next;
    used_bytes -= b->bytes;
    poison(b, 0xdd);
    free(b->base);
    free(b);
    return;
  }
  sticky = 700;
}

static void append(Graph *graph, Op op) {
  graph->ops = realloc(graph->ops, (graph->count + 1) * sizeof op);
  graph->ops[graph->count++] = op;
}

static void run_until(Stream *stream, size_t end) {
  while (stream->done < end) {
    Op op = stream->queue.ops[stream->done++];
    switch (op.kind) {
      case COPY: memmove(op.dst, op.src, op.bytes); break;
      case FILL:
        if (!block_of(op.dst, op.bytes * op.width)) {
          sticky = 700;
          break;
        }
        for (size_t i = 0; i < op.bytes; i++) memcpy(op.dst + i * op.width, &op.value, op.width);
        break;
      case FREE: free_block(op.dst); break;
      case RECORD: break;
      case WAIT: if (op.awaited) run_until(op.awaited, op.position); break;
      case STORE:
        if (block_of(op.dst, 4)) memcpy(op.dst, &op.value, 4);
        else sticky = 700;
        break;
    }
  }
}

static int enqueue(Stream *stream, Op op) {
  if (!current) return 201;
  if (sticky) return sticky;
  append(stream->capture ? stream->capture : &stream->queue, op);
  return OK;
}

static int run_all(void) {
  for (int i = 0; i < 256; i++)
    if (all_streams[i]) run_until(all_streams[i], all_streams[i]->queue.count);
  return sticky;
}

#define LOCKED(name, params, ...)            \
  static int name##_locked params;           \
  API name params {                          \
    pthread_mutex_lock(&lock);               \
    int result = name##_locked(__VA_ARGS__); \
    pthread_mutex_unlock(&lock);             \
    return result;                           \
  }                                          \
  static int name##_locked params

API cuDriverGetVersion(int *version) { return *version = 13000, OK; }

#ifdef FAKE_NO_DEVICE
API cuInit(unsigned flags) { return (void)flags, 100; }
#else
API cuInit(unsigned flags) { return (void)flags, OK; }
#endif

#ifndef FAKE_STUB
API cuGetErrorName(int error, const char **text) {
  *text = error == 1 ? "CUDA_ERROR_INVALID_VALUE" : error == 2 ? "CUDA_ERROR_OUT_OF_MEMORY"
        : error == 100 ? "CUDA_ERROR_NO_DEVICE" : error == 101 ? "CUDA_ERROR_INVALID_DEVICE"
        : error == 200 ? "CUDA_ERROR_INVALID_IMAGE" : error == 209 ? "CUDA_ERROR_NO_BINARY_FOR_GPU"
        : error == 500 ? "CUDA_ERROR_NOT_FOUND" : error == 700 ? "CUDA_ERROR_ILLEGAL_ADDRESS" : "CUDA_ERROR_OTHER";
  return OK;
}
API cuGetErrorString(int error, const char **text) { return *text = error == 1 ? "invalid argument" : "some text", OK; }
API cuDeviceGetCount(int *count) { return *count = 2, OK; }
API cuDeviceGet(int *device, int ordinal) { return *device = ordinal, ordinal < 0 || ordinal > 1 ? 101 : OK; }
API cuDeviceGetName(char *name, int length, int device) { return snprintf(name, length, "Fake %d", device), OK; }
API cuDeviceGetUuid_v2(uint8_t *uuid, int device) {
  for (int i = 0; i < 16; i++) uuid[i] = i * 16 + device;
  return OK;
}
API cuDeviceGetPCIBusId(char *id, int length, int device) { return snprintf(id, length, "0000:%02x:00.0", device), OK; }
API cuDeviceTotalMem_v2(size_t *bytes, int device) { return (void)device, *bytes = 6ull << 32, OK; }
API cuDeviceGetAttribute(int *value, int attribute, int device) {
  // Device 1 has no memory pools; otherwise an attribute reads as its own number times 100, or as FAKE_CUDA_ATTRIBUTES says.
  const char *given = getenv("FAKE_CUDA_ATTRIBUTES");
  char name[16];
  snprintf(name, sizeof name, " %d=", attribute);
  if (given && (given = strstr(given, name))) return *value = atoi(strchr(given, '=') + 1), OK;
  *value = attribute == 115 ? device == 0 : attribute == 75 ? 9 : attribute == 76 ? 0 : attribute * 100;
  return OK;
}
LOCKED(cuDevicePrimaryCtxRetain, (void **context, int device), context, device) {
  retained[device]++;
  *context = &contexts[device];
  return OK;
}
LOCKED(cuDevicePrimaryCtxRelease_v2, (int device), device) {
  int blocks_left = 0;
  for (Block *b = blocks; b; b = b->next) blocks_left++;
  note("release device=%d retained=%d blocks=%d pinned=%d events=%d streams=%d graphs=%d execs=%d modules=%d sticky=%d",
       device, --retained[device], blocks_left, live_pinned, live_events, live_streams, live_graphs, live_execs,
       live_modules, sticky);
  return OK;
}
API cuCtxGetCurrent(void **context) { return *context = current, OK; }
API cuCtxSetCurrent(void *context) { return current = context, OK; }
LOCKED(cuCtxSynchronize, (void)) {
  for (int i = 0; i < 256; i++)
    if (all_streams[i] && all_streams[i]->capture) return all_streams[i]->invalidated = 1, 900;
  return current ? run_all() : 201;
}
API cuDeviceGetDefaultMemPool(void **pool, int device) { return (void)device, *pool = &threshold, OK; }
API cuMemPoolSetAttribute(void *pool, int attribute, void *value) {
  (void)pool;
  note("cuMemPoolSetAttribute %d %llx", attribute, *(unsigned long long *)value);
  return OK;
}
API cuMemPoolGetAttribute(void *pool, int attribute, void *value) {
  (void)pool;
  *(uint64_t *)value = attribute == 7 ? used_bytes : CAPACITY;
  return OK;
}
API cuMemPoolTrimTo(void *pool, size_t keep) { return (void)pool, note("cuMemPoolTrimTo %zu", keep), OK; }
API cuMemGetInfo_v2(size_t *free, size_t *total) { return *free = CAPACITY - used_bytes, *total = CAPACITY, OK; }

LOCKED(cuMemAlloc_v2, (ptr_t *ptr, size_t bytes), ptr, bytes) {
  if (!current) return 201;
  if (bytes == 0) return INVALID_VALUE;
  if (bytes > CAPACITY - used_bytes) return OUT_OF_MEMORY;
  Block *b = malloc(sizeof *b);
  *b = (Block){aligned_alloc(256, (bytes + 255) / 256 * 256), bytes, blocks};
  poison(b, 0xcd);
  blocks = b;
  used_bytes += bytes;
  *ptr = (uintptr_t)b->base;
  return OK;
}
API cuMemAllocAsync(ptr_t *ptr, size_t bytes, Stream *stream) {
  note("cuMemAllocAsync %zu capturing=%d", bytes, stream->capture != NULL);
  return cuMemAlloc_v2(ptr, bytes);
}
LOCKED(cuMemFree_v2, (ptr_t ptr), ptr) {
  note("cuMemFree");
  free_block((void *)ptr);
  return OK;
}
LOCKED(cuMemFreeAsync, (ptr_t ptr, Stream *stream), ptr, stream) {
  note("cuMemFreeAsync capturing=%d", stream->capture != NULL);
  return enqueue(stream, (Op){.kind = FREE, .dst = (uint8_t *)ptr});
}
API cuMemHostAlloc(void **ptr, size_t bytes, unsigned flags) {
  note("cuMemHostAlloc %zu flags=%u", bytes, flags);
  if (!current) return 201;
  __atomic_add_fetch(&live_pinned, 1, __ATOMIC_SEQ_CST);
  return *ptr = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096), OK;
}
API cuMemFreeHost(void *ptr) { return __atomic_sub_fetch(&live_pinned, 1, __ATOMIC_SEQ_CST), free(ptr), OK; }

static int copy(ptr_t dst, ptr_t src, size_t bytes, Stream *stream, ptr_t device_side) {
  if (!block_of((void *)device_side, bytes)) return INVALID_VALUE;
  return enqueue(stream, (Op){.kind = COPY, .dst = (uint8_t *)dst, .src = (uint8_t *)src, .bytes = bytes});
}
LOCKED(cuMemcpyHtoDAsync_v2, (ptr_t dst, void *src, size_t bytes, Stream *s), dst, src, bytes, s) {
  note("cuMemcpyHtoDAsync %zu", bytes);
  return copy(dst, (uintptr_t)src, bytes, s, dst);
}
LOCKED(cuMemcpyDtoHAsync_v2, (void *dst, ptr_t src, size_t bytes, Stream *s), dst, src, bytes, s) {
  note("cuMemcpyDtoHAsync %zu", bytes);
  return copy((uintptr_t)dst, src, bytes, s, src);
}
LOCKED(cuMemcpyDtoDAsync_v2, (ptr_t dst, ptr_t src, size_t bytes, Stream *s), dst, src, bytes, s) {
  return block_of((void *)src, bytes) ? copy(dst, src, bytes, s, dst) : INVALID_VALUE;
}
static int fill(ptr_t dst, uint32_t value, uint32_t width, size_t count, Stream *s) {
  if (!block_of((void *)dst, width * count)) return INVALID_VALUE;
  return enqueue(s, (Op){.kind = FILL, .dst = (uint8_t *)dst, .value = value, .width = width, .bytes = count});
}
LOCKED(cuMemsetD8Async, (ptr_t d, unsigned char v, size_t n, Stream *s), d, v, n, s) { return fill(d, v, 1, n, s); }
LOCKED(cuMemsetD16Async, (ptr_t d, unsigned short v, size_t n, Stream *s), d, v, n, s) { return fill(d, v, 2, n, s); }
LOCKED(cuMemsetD32Async, (ptr_t d, unsigned v, size_t n, Stream *s), d, v, n, s) { return fill(d, v, 4, n, s); }

LOCKED(cuStreamCreateWithPriority, (Stream **stream, unsigned flags, int priority), stream, flags, priority) {
  note("cuStreamCreate flags=%u priority=%d", flags, priority);
  if (!current) return 201;
  *stream = calloc(1, sizeof **stream);
  for (int i = 0; i < 256; i++)
    if (!all_streams[i]) { all_streams[i] = *stream; break; }
  live_streams++;
  return OK;
}
LOCKED(cuStreamDestroy_v2, (Stream *stream), stream) {
  note("cuStreamDestroy");
  live_streams--;  // its queue stays, as the driver's work does, for events that were recorded on it
  return stream ? OK : INVALID_VALUE;
}
LOCKED(cuStreamSynchronize, (Stream *stream), stream) {
  if (!current) return 201;
  if (stream->capture) return 900;
  run_until(stream, stream->queue.count);
  return sticky;
}
LOCKED(cuStreamWaitEvent, (Stream *stream, Event *event, unsigned flags), stream, event, flags) {
  return enqueue(stream, (Op){.kind = WAIT, .awaited = event->stream, .position = event->position});
}
LOCKED(cuStreamBeginCapture_v2, (Stream *stream, int mode), stream, mode) {
  note("cuStreamBeginCapture mode=%d", mode);
  stream->capture = calloc(1, sizeof(Graph));
  return OK;
}
LOCKED(cuStreamEndCapture, (Stream *stream, Graph **graph), stream, graph) {
  *graph = stream->invalidated ? NULL : stream->capture;
  stream->capture = NULL;
  if (stream->invalidated) return stream->invalidated = 0, 901;
  live_graphs++;
  return OK;
}
LOCKED(cuStreamIsCapturing, (Stream *stream, int *status), stream, status) {
  *status = stream->capture != NULL;
  return OK;
}
LOCKED(cuEventCreate, (Event **event, unsigned flags), event, flags) {
  note("cuEventCreate flags=%u", flags);
  if (!current) return 201;
  *event = calloc(1, sizeof **event);
  live_events++;
  return OK;
}
LOCKED(cuEventDestroy_v2, (Event *event), event) {
  live_events--;
  free(event);
  return OK;
}
LOCKED(cuEventRecord, (Event *event, Stream *stream), event, stream) {
  const int result = enqueue(stream, (Op){.kind = RECORD});
  *event = (Event){stream, stream->queue.count};
  return result;
}
LOCKED(cuEventQuery, (Event *event), event) { return event->stream && event->stream->done < event->position ? 600 : OK; }
LOCKED(cuEventSynchronize, (Event *event), event) {
  if (!current) return 201;
  if (event->stream) run_until(event->stream, event->position);
  return sticky;
}
LOCKED(cuEventElapsedTime, (float *ms, Event *start, Event *end), ms, start, end) {
  if (end->stream->done < end->position) return 600;
  return *ms = (float)(end->position - start->position), OK;
}
LOCKED(cuGraphGetNodes, (Graph *graph, void **nodes, size_t *count), graph, nodes, count) {
  return *count = graph->count, OK;
}
LOCKED(cuGraphInstantiateWithFlags, (Graph **exec, Graph *graph, unsigned long long flags), exec, graph, flags) {
  note("cuGraphInstantiate flags=%llu", flags);
  *exec = calloc(1, sizeof **exec);
  for (size_t i = 0; i < graph->count; i++) append(*exec, graph->ops[i]);
  live_execs++;
  return OK;
}
LOCKED(cuGraphLaunch, (Graph *exec, Stream *stream), exec, stream) {
  for (size_t i = 0; i < exec->count; i++) enqueue(stream, exec->ops[i]);
  return OK;
}
LOCKED(cuGraphDestroy, (Graph *graph), graph) { return live_graphs--, free(graph->ops), free(graph), OK; }
LOCKED(cuGraphExecDestroy, (Graph *exec), exec) { return live_execs--, free(exec->ops), free(exec), OK; }

LOCKED(cuModuleLoadDataEx, (void **module, const char *image, unsigned n, int *options, void **values),
       module, image, n, options, values) {
  if (!current) return 201;
  if (!strcmp(image, "for another GPU")) return 209;
  // A cubin has whatever kernel is asked for, and its launches do nothing.
  const int elf = !memcmp(image, "\x7f" "ELF", 4);
  if (!elf && strcmp(image, ".version 8.0")) {
    for (unsigned i = 0; i < n; i++)
      if (options[i] == 5) snprintf(values[i], (size_t)values[i + 1], "ptxas: line 1 is not PTX");
    return 200;
  }
  live_modules++;
  *module = malloc(1);
  return *(char *)*module = elf, OK;
}
LOCKED(cuModuleUnload, (void *module), module) { return live_modules--, free(module), OK; }
API cuModuleGetFunction(void **function, void *module, const char *name) {
  return *function = module, !*(char *)module && strcmp(name, "store") ? 500 : OK;
}
API cuFuncGetAttribute(int *value, int attribute, void *function) { return (void)function, *value = 10 + attribute, OK; }
API cuFuncSetAttribute(void *function, int attribute, int value) {
  return (void)function, note("cuFuncSetAttribute %d %d", attribute, value), OK;
}
API cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, void *function, int threads, size_t shared) {
  return (void)function, *blocks = threads * 1000 + (int)shared, OK;
}

typedef struct {
  int id, pad;
  union {
    char bytes[64];
    unsigned cluster[3];
    int pdl;
  };
} Attribute;
typedef struct {
  unsigned grid[3], block[3], shared;
  Stream *stream;
  Attribute *attributes;
  unsigned count;
} Config;
#ifndef FAKE_OLD
API cuOccupancyMaxActiveClusters(int *clusters, void *function, const Config *c) {
  const unsigned blocks = c->attributes[0].cluster[0];
  note("cuOccupancyMaxActiveClusters grid=%u block=%u cluster=%u", c->grid[0], c->block[0], blocks);
  return (void)function, *clusters = 7, blocks > 16 ? 912 : OK;
}
#endif
LOCKED(cuLaunchKernelEx, (const Config *c, void *function, void **params, void **extra), c, function, params, extra) {
  struct {
    uint64_t address;
    uint32_t value, pad;
  } args;
  memcpy(&args, params[0], sizeof args);
  if (c->block[0] > 1024) return INVALID_VALUE;
  if (*(char *)function) return OK;
  const int result = enqueue(c->stream, (Op){.kind = STORE, .dst = (uint8_t *)args.address, .value = args.value});
  if (getenv("FAKE_CUDA_QUIET")) return c->stream->queue.count = c->stream->done = 0, result;
  char attributes[128] = "";
  for (unsigned i = 0; i < c->count; i++) {
    const Attribute *a = &c->attributes[i];
    char one[64];
    if (a->id == 4) snprintf(one, sizeof one, " cluster=%u,%u,%u", a->cluster[0], a->cluster[1], a->cluster[2]);
    else snprintf(one, sizeof one, " attribute%d=%d", a->id, a->pdl);
    strcat(attributes, one);
  }
  note("cuLaunchKernelEx grid=%u,%u,%u block=%u,%u,%u shared=%u value=%u pad=%x%s", c->grid[0], c->grid[1], c->grid[2],
       c->block[0], c->block[1], c->block[2], c->shared, args.value, args.pad, attributes);
  return result;
}

#if !defined FAKE_OLD && !defined FAKE_TENSOR_MAPS
API cuFuncLoad(void *function) { return (void)function, note("cuFuncLoad"), OK; }
API cuFuncGetParamInfo(void *function, size_t index, size_t *offset, size_t *size) {
  (void)function;
  return index ? INVALID_VALUE : (*offset = 0, *size = 16, OK);
}
#endif
#ifndef FAKE_OLD
API cuTensorMapEncodeTiled(uint64_t *map, int dtype, unsigned rank, void *address, const uint64_t *dims,
                           const uint64_t *strides, const unsigned *box, const unsigned *elementStrides, int interleave,
                           int swizzle, int l2, int oob) {
  if ((uintptr_t)map % 64 || rank < 2) return INVALID_VALUE;
  const uint64_t words[16] = {dtype, rank, (uintptr_t)address, dims[0], dims[1], strides[0], box[0], box[1],
                              elementStrides[0], elementStrides[1], interleave, swizzle, l2, oob, 0, ~0ull};
  memcpy(map, words, sizeof words);
  return OK;
}
#endif
#endif
