/* A libcuda.so.1 with two devices that runs nothing and records what it is asked to do.
 *
 * It keeps the driver's rules where our code depends on them: a context is current on a thread; a module belongs to the
 * context that is current when it is loaded; its functions run under no other; nothing works in a forked child.
 * What it is asked is appended, a line each, to the file that FAKE_CUDA_LOG names; without it nothing is written.
 *
 * A module is text: "FAKE sm_90 gilr 104" holds one function, gilr, for sm_90, whose parameter has 104 bytes.
 */
#include <dlfcn.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, INVALID_VALUE = 1, NOT_INITIALIZED = 3, INVALID_DEVICE = 101, INVALID_IMAGE = 200, INVALID_CONTEXT = 201,
       NO_BINARY_FOR_GPU = 209, INVALID_HANDLE = 400, NOT_FOUND = 500 };
enum { DEVICES = 2, MAJOR = 75, MINOR = 76, DEEPEST = 16, MOST_THREADS = 1024 };

typedef struct { int device, major, minor; } Context;
typedef struct { Context *context; char entry[64]; unsigned bytes; } Module;

static Context primary[DEVICES] = {{0, 9, 0}, {1, 8, 0}};
static __thread Context *stack[DEEPEST];  /* of the contexts of this thread, the last one current */
static __thread int depth;
static int process;  /* that called cuInit */

static void record(const char *format, ...) {
  const char *path = getenv("FAKE_CUDA_LOG");
  if (!path) return;
  FILE *log = fopen(path, "a");
  va_list values;
  va_start(values, format);
  vfprintf(log, format, values);
  va_end(values);
  fclose(log);
}

static Context *current(void) { return depth ? stack[depth - 1] : NULL; }

#define NEED_PROCESS if (process != getpid()) return NOT_INITIALIZED
#define NEED_CONTEXT NEED_PROCESS; if (!current()) return INVALID_CONTEXT

int cuInit(unsigned flags) {
  const char *fails = getenv("FAKE_CUDA_INIT");  /* the error that it gives */
  if (fails) return atoi(fails);
  if (flags) return INVALID_VALUE;
  if (process && process != getpid()) return NOT_INITIALIZED;
  process = getpid();
  record("init\n");
  return SUCCESS;
}

int cuDriverGetVersion(int *version) { *version = 13000; return SUCCESS; }

int cuDeviceGet(int *device, int ordinal) {
  NEED_PROCESS;
  if (ordinal < 0 || ordinal >= DEVICES) return INVALID_DEVICE;
  *device = ordinal;
  return SUCCESS;
}

int cuDeviceGetAttribute(int *value, int attribute, int device) {
  NEED_PROCESS;
  *value = attribute == MAJOR ? primary[device].major : attribute == MINOR ? primary[device].minor : 0;
  return SUCCESS;
}

int cuDevicePrimaryCtxRetain(Context **context, int device) {
  NEED_PROCESS;
  *context = &primary[device];
  record("retain %d\n", device);
  return SUCCESS;
}

int cuCtxGetCurrent(Context **context) {
  NEED_PROCESS;
  *context = current();
  return SUCCESS;
}

int cuCtxSetCurrent(Context *context) {
  NEED_PROCESS;
  if (!depth) depth = 1;
  stack[depth - 1] = context;
  record("set %d\n", context->device);
  return SUCCESS;
}

int cuCtxPushCurrent_v2(Context *context) {
  NEED_PROCESS;
  if (depth == DEEPEST) return INVALID_VALUE;
  stack[depth++] = context;
  record("push %d\n", context->device);
  return SUCCESS;
}

int cuCtxPopCurrent_v2(Context **context) {
  NEED_CONTEXT;
  *context = stack[--depth];
  record("pop %d\n", (*context)->device);
  return SUCCESS;
}

int cuModuleLoadData(Module **module, const void *image) {
  NEED_CONTEXT;
  Module found = {current(), "", 0};
  int major, minor;
  if (sscanf(image, "FAKE sm_%1d%1d %63s %u", &major, &minor, found.entry, &found.bytes) != 4) return INVALID_IMAGE;
  if (major != current()->major || minor > current()->minor) return NO_BINARY_FOR_GPU;
  *module = malloc(sizeof found);
  **module = found;
  record("load %s on %d\n", found.entry, current()->device);
  return SUCCESS;
}

int cuModuleUnload(Module *module) {
  record("unload %s on %d\n", module->entry, module->context->device);
  return SUCCESS;
}

int cuModuleGetFunction(Module **function, Module *module, const char *entry) {
  NEED_CONTEXT;
  if (strcmp(entry, module->entry)) return NOT_FOUND;
  *function = module;
  return SUCCESS;
}

int cuLaunchKernel(Module *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                   unsigned block_z, unsigned shared, void *stream, void **parameters, void **extra) {
  NEED_CONTEXT;
  if (function->context != current()) return INVALID_HANDLE;
  if (!grid_x || grid_x > INT32_MAX || grid_y != 1 || grid_z != 1 || block_x > MOST_THREADS || block_y != 1 || block_z != 1 ||
      shared || extra)
    return INVALID_VALUE;
  if (!getenv("FAKE_CUDA_LOG")) return SUCCESS;  /* so that the time of a launch is our own */
  char bytes[2048] = "";
  for (unsigned i = 0; i < function->bytes && i < sizeof bytes / 2; ++i)
    sprintf(bytes + 2 * i, "%02x", ((unsigned char *)parameters[0])[i]);
  record("launch %s on %d: %ux%u, stream %" PRIuPTR ", %s\n", function->entry, current()->device, grid_x, block_x,
         (uintptr_t)stream, bytes);
  return SUCCESS;
}

/* How newer versions of cuda.bindings find the functions, by their plain names. */
int cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *found) {
  (void)version, (void)flags;
  void *self = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
  char second[128];
  snprintf(second, sizeof second, "%s_v2", name);
  *function = dlsym(self, second);
  if (!*function) *function = dlsym(self, name);
  if (found) *found = !*function;  /* 1: there is no such function */
  return *function ? SUCCESS : NOT_FOUND;
}
