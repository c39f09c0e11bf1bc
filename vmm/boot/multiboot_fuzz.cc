// Any bytes as a multiboot kernel; the corpus holds well-formed ones, by ELF headers and by addresses.
#include <cstddef>
#include <cstdint>
#include <span>

#include "vmm/boot/fuzz_loader.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  vmm::FuzzLoad(std::as_bytes(std::span(data, size)), vmm::ImageFormat::kMultiboot);
  return 0;
}
