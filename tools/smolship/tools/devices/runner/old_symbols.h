// Included first in every file: functions that newer C libraries have twice are bound to the older one, which
// computes the same.
#pragma once

#include <features.h>

#if defined(__GLIBC__) && defined(__x86_64__)
#define SMOLSHIP_OLD(name) __asm__(".symver " #name ", " #name "@GLIBC_2.2.5")
SMOLSHIP_OLD(exp);
SMOLSHIP_OLD(log);
#elif defined(__GLIBC__) && defined(__aarch64__)
#define SMOLSHIP_OLD(name) __asm__(".symver " #name ", " #name "@GLIBC_2.17")
SMOLSHIP_OLD(exp);
SMOLSHIP_OLD(log);
#endif
