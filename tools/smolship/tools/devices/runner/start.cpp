// The beginning of the process, in place of the C library's crt1.o: a newer library's asks for a symbol that the oldest
// ones that this runs on do not have. Functions whose symbol changed since then are bound to the old one.
#include <features.h>

#if defined(__GLIBC__) && (defined(__x86_64__) || defined(__aarch64__))

#ifdef __x86_64__
#define OLDEST "GLIBC_2.2.5"
asm(".globl _start\n"
    ".type _start, @function\n"
    "_start:\n"
    "  xor %ebp, %ebp\n"
    "  mov %rsp, %rdi\n"
    "  mov %rdx, %rsi\n"
    "  and $-16, %rsp\n"
    "  call smolship_start\n"
    "  hlt\n");
#else
#define OLDEST "GLIBC_2.17"
asm(".globl _start\n"
    ".type _start, %function\n"
    "_start:\n"
    "  mov x29, #0\n"
    "  mov x30, #0\n"
    "  mov x1, x0\n"
    "  mov x0, sp\n"
    "  bl smolship_start\n"
    "  brk #0\n");
#endif
asm(".symver old_start, __libc_start_main@" OLDEST);

using Function = void (*)(int, char**, char**);

extern "C" {
extern int old_start(int (*main)(int, char**, char**), int count, char** arguments, Function init, void (*fini)(),
                     void (*end)(), void* stack);
extern int run_main(int count, char** arguments, char** environment) asm("main");
extern Function __init_array_start[] __attribute__((visibility("hidden")));
extern Function __init_array_end[] __attribute__((visibility("hidden")));
// The C++ library's headers look at it to save atomic operations; a younger C library defines it.
extern char __libc_single_threaded __attribute__((visibility("hidden")));
char __libc_single_threaded = 0;
void* __dso_handle __attribute__((visibility("hidden"))) = &__dso_handle;

static void run_constructors(int count, char** arguments, char** environment) {
  for (Function* one = __init_array_start; one != __init_array_end; one++) (*one)(count, arguments, environment);
}

// Called with the stack as the kernel leaves it: the count of arguments, then their addresses.
__attribute__((noreturn, used, visibility("hidden"))) void smolship_start(void** stack, void (*end)()) {
  const int count = static_cast<int>(*reinterpret_cast<long*>(stack));
  old_start(run_main, count, reinterpret_cast<char**>(stack + 1), run_constructors, nullptr, end, stack);
  __builtin_trap();
}
}

#endif
