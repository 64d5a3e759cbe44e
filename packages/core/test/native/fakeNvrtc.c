// SPDX-License-Identifier: Apache-2.0
// An NVRTC for tests on machines without one: "compiles" to the options and the source, joined by newlines; a source
// with the word `broken` fails with a log, and -arch=compute_* gives no cubin, as in the real one.
#include <stdlib.h>
#include <string.h>
#include <stdio.h>

typedef struct Program {
  char *source, *cubin, log[256];
} Program;

const char *nvrtcGetErrorString(int result) { return result == 6 ? "NVRTC_ERROR_COMPILATION" : "NVRTC_ERROR_OTHER"; }
int nvrtcVersion(int *major, int *minor) { return *major = 13, *minor = 7, 0; }
int nvrtcGetNumSupportedArchs(int *count) { return *count = 3, 0; }
int nvrtcGetSupportedArchs(int *archs) { return archs[0] = 75, archs[1] = 90, archs[2] = 120, 0; }
int nvrtcCreateProgram(Program **out, const char *source, const char *name, int n, const char **h, const char **i) {
  (void)n, (void)h, (void)i;
  *out = calloc(1, sizeof **out);
  (*out)->source = strdup(source);
  snprintf((*out)->log, sizeof (*out)->log, "%s(1): warning: fake\n", name);
  return 0;
}
int nvrtcDestroyProgram(Program **p) { return free((*p)->source), free((*p)->cubin), free(*p), *p = NULL, 0; }
int nvrtcCompileProgram(Program *p, int count, const char **options) {
  if (strstr(p->source, "broken")) {
    strcat(p->log, "k.cu(7): error: expected a \";\"\n1 error detected\n");
    return 6;
  }
  p->cubin = calloc(1, 4096);
  for (int i = 0; i < count; i++) {
    if (strstr(options[i], "-arch=compute_")) return p->cubin[0] = '\0', 0;
    strcat(strcat(p->cubin, options[i]), "\n");
  }
  strcat(p->cubin, p->source);
  return 0;
}
int nvrtcGetProgramLogSize(Program *p, size_t *size) { return *size = strlen(p->log) + 1, 0; }
int nvrtcGetProgramLog(Program *p, char *log) { return strcpy(log, p->log), 0; }
int nvrtcGetCUBINSize(Program *p, size_t *size) { return *size = strlen(p->cubin), 0; }
int nvrtcGetCUBIN(Program *p, char *cubin) { return memcpy(cubin, p->cubin, strlen(p->cubin)), 0; }
