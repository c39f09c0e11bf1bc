// What compiled code and libsodium want of a C library. What is not here (files, threads, allocation) libsodium names and never
// calls on our way through it: the link leads all of that to VaultUnavailable.
#include <cstddef>
#include <cstdint>

#include "examples/vault/secure_kernel/hypervisor.h"

extern "C" {

void* memcpy(void* to, const void* from, size_t bytes) {
  void* const result = to;
  asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
  return result;
}

void* memmove(void* to, const void* from, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(to) - reinterpret_cast<uintptr_t>(from) >= bytes) return memcpy(to, from, bytes);
  void* const result = to;
  void* to_end = static_cast<char*>(to) + bytes - 1;
  const void* from_end = static_cast<const char*>(from) + bytes - 1;
  asm volatile("std; rep movsb; cld" : "+D"(to_end), "+S"(from_end), "+c"(bytes) : : "memory");
  return result;
}

void* memset(void* to, int value, size_t bytes) {
  void* const result = to;
  asm volatile("rep stosb" : "+D"(to), "+c"(bytes) : "a"(value) : "memory");
  return result;
}

void __explicit_bzero_chk(void* to, size_t bytes, size_t) { memset(to, 0, bytes); }
[[noreturn]] void __stack_chk_fail() { vault::Panic("a stack was overrun"); }
[[noreturn]] void VaultUnavailable() { vault::Panic("something that there is not"); }

}  // extern "C"
