#include "tests/guests/runtime/memory.h"

#include "tests/guests/runtime/atomic.h"
#include "tests/guests/runtime/machine.h"
#include "tests/guests/runtime/test.h"

extern "C" {

extern char guest_image_end[];

void* memcpy(void* to, const void* from, size_t bytes) {
  void* const result = to;
  asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
  return result;
}

void* memmove(void* to, const void* from, size_t bytes) {
  if (reinterpret_cast<uint64_t>(to) - reinterpret_cast<uint64_t>(from) >= bytes) return memcpy(to, from, bytes);
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

int memcmp(const void* a, const void* b, size_t bytes) {
  const auto* x = static_cast<const volatile unsigned char*>(a);
  const auto* y = static_cast<const volatile unsigned char*>(b);
  for (size_t i = 0; i < bytes; ++i) {
    const int left = x[i], right = y[i];
    if (left != right) return left - right;
  }
  return 0;
}

size_t strlen(const char* text) {
  size_t length = 0;
  while (static_cast<const volatile char*>(text)[length] != '\0') ++length;
  return length;
}

int strcmp(const char* a, const char* b) {
  while (*a != '\0' && *a == *b) ++a, ++b;
  return static_cast<unsigned char>(*a) - static_cast<unsigned char>(*b);
}

}  // extern "C"

namespace guest {
namespace {

Atomic<uint64_t> g_used_pages;

}  // namespace

void* AllocatePages(uint64_t count) {
  const uint64_t first = (reinterpret_cast<uint64_t>(guest_image_end) + kPageBytes - 1) / kPageBytes;
  const uint64_t end = (uint64_t{GetBootInfo().upper_kib} * 1024 + 0x10'0000) / kPageBytes;
  const uint64_t page = first + g_used_pages.Add(count);
  if (page + count > end) Fatal("no memory left for pages", count);
  auto* const memory = reinterpret_cast<void*>(page * kPageBytes);
  memset(memory, 0, count * kPageBytes);
  return memory;
}

}  // namespace guest
