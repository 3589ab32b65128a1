/* A new program in an old process. */
#ifndef EXEC_H
#define EXEC_H

#include <stdint.h>

int32_t exec_first(const char *const *arguments); /* for the first process: the kernel's own words */
int32_t call_exec(uint32_t path, uint32_t arguments);

#endif
