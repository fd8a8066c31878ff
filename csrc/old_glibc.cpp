// What libstdc++ of a new machine asks of glibc and old ones lack. Compiled in where the library is to run with them
// (portable_link.cmake).

// Whether the process has one thread, so that reference counts need no atomic operations; glibc has it from 2.32 on. No
// is always right.
extern "C" {
char __libc_single_threaded = 0;
}
