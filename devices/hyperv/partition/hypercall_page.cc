#include "devices/hyperv/partition/hypercall_page.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace vmm {
namespace {

constexpr uint8_t kPort = static_cast<uint8_t>(kHvHypercallPort);
static_assert(kHvHypercallPort <= 0xff, "the immediate form of out");

// Each ends in nop; out imm8, al; ret.
constexpr auto kHypercall = std::to_array<uint8_t>({0x90, 0xe6, kPort, 0xc3});
// mov ecx, eax; mov eax, 0x11
constexpr auto kVtlCall32 = std::to_array<uint8_t>({0x89, 0xc1, 0xb8, 0x11, 0, 0, 0, 0x90, 0xe6, kPort, 0xc3});
// mov rax, rcx; mov ecx, 0x11
constexpr auto kVtlCall64 = std::to_array<uint8_t>({0x48, 0x89, 0xc8, 0xb9, 0x11, 0, 0, 0, 0x90, 0xe6, kPort, 0xc3});
constexpr auto kVtlReturn32 = std::to_array<uint8_t>({0x89, 0xc1, 0xb8, 0x12, 0, 0, 0, 0x90, 0xe6, kPort, 0xc3});
constexpr auto kVtlReturn64 = std::to_array<uint8_t>({0x48, 0x89, 0xc8, 0xb9, 0x12, 0, 0, 0, 0x90, 0xe6, kPort, 0xc3});
constexpr uint8_t kFiller = 0xcc;  // int3

struct Entry {
  uint32_t offset;
  std::span<const uint8_t> code;
  constexpr uint32_t OutOffset() const { return offset + static_cast<uint32_t>(code.size()) - 3; }
};
constexpr Entry kEntries[] = {
    {kHvHypercallOffset, kHypercall},     {kHvVtlCall32Offset, kVtlCall32},     {kHvVtlCall64Offset, kVtlCall64},
    {kHvVtlReturn32Offset, kVtlReturn32}, {kHvVtlReturn64Offset, kVtlReturn64},
};
static_assert(kHvHypercallOffset + kHypercall.size() == kHvVtlCall32Offset);
static_assert(kHvVtlCall32Offset + kVtlCall32.size() == kHvVtlCall64Offset);
static_assert(kHvVtlCall64Offset + kVtlCall64.size() == kHvVtlReturn32Offset);
static_assert(kHvVtlReturn32Offset + kVtlReturn32.size() == kHvVtlReturn64Offset);

}  // namespace

void FillHypercallPage(std::span<std::byte, kPageBytes> page) noexcept {
  std::ranges::fill(page, std::byte{kFiller});
  for (const Entry& entry : kEntries) std::memcpy(page.data() + entry.offset, entry.code.data(), entry.code.size());
}

bool IsHypercallPageExit(uint64_t rip) noexcept {
  return std::ranges::any_of(kEntries, [rip](const Entry& entry) { return rip % kPageBytes == entry.OutOffset(); });
}

}  // namespace vmm
