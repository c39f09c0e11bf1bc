// Memory: the first 4 GiB are mapped to themselves, so that a pointer is a guest physical address.
//
// Shapes   pages are taken from behind the image and never given back.
// Threads  AllocatePages: any.
// Errors   no memory left: the guest ends.
#ifndef VMM_TESTS_GUESTS_RUNTIME_MEMORY_H_
#define VMM_TESTS_GUESTS_RUNTIME_MEMORY_H_

#include <cstddef>
#include <cstdint>

extern "C" {
void* memcpy(void* to, const void* from, size_t bytes);
void* memmove(void* to, const void* from, size_t bytes);
void* memset(void* to, int value, size_t bytes);
int memcmp(const void* a, const void* b, size_t bytes);
size_t strlen(const char* text);
int strcmp(const char* a, const char* b);
}

namespace guest {

inline constexpr uint64_t kPageBytes = 4096;

// Zeroed, aligned to a page.
[[nodiscard]] void* AllocatePages(uint64_t count);
inline uint64_t GpaOf(const volatile void* pointer) { return reinterpret_cast<uint64_t>(pointer); }

// One access each, of that size, whatever the optimizer thinks.
template <typename T>
[[nodiscard]] T Load(uint64_t gpa) {
  return *reinterpret_cast<volatile T*>(gpa);
}
template <typename T>
void Store(uint64_t gpa, T value) {
  *reinterpret_cast<volatile T*>(gpa) = value;
}

}  // namespace guest

#endif  // VMM_TESTS_GUESTS_RUNTIME_MEMORY_H_
