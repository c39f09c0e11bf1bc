// Every access of an instruction, in order, found by refusing all pages, and then allowing what was refused until nothing is. For
// tests with a guest whose pages are identity-mapped.
//
// Shapes   "r2010 w4008": kind (r, w, x) and linear address in hexadecimal; "R800123" and "W800123" are page-table entries, by
//          GPA. At the end "fault" or "unknown", if the instruction ended so. A page that was written once is readable from then
//          on, so operands that are to be told apart lie in pages of their own.
#ifndef VMM_VCPU_ACCESS_DECODER_ACCESS_TRACE_H_
#define VMM_VCPU_ACCESS_DECODER_ACCESS_TRACE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "memory/gpa.h"
#include "memory/guest_memory.h"
#include "memory/guest_ram.h"
#include "memory/layout.h"
#include "vcpu/access_decoder/access_decoder.h"
#include "vcpu/access_decoder/fake_level_view.h"
#include "vcpu/fake_page_tables.h"

namespace vmm {

// A machine of 16 MiB in 64-bit mode at CPL 0: linear addresses up to 1 MiB are mapped to themselves, tables lie at 8 MiB. All
// but the page of code may be refused. Registers are as the members below say, and may be changed.
class AccessTrace {
 public:
  static constexpr uint64_t kRamBytes = 16 * kMiB;
  static constexpr uint64_t kMapped = kMiB;
  static constexpr uint64_t kTables = 8 * kMiB;
  static constexpr uint64_t kCode = 0x1000;
  static constexpr uint64_t kGdt = 0x10000;
  static constexpr uint64_t kIdt = 0x11000;
  static constexpr uint64_t kTss = 0x12000;
  static constexpr uint64_t kLdt = 0x13000;

  AccessTrace() {
    for (uint64_t page = 0; page < kMapped; page += kPageBytes) tables.Map(page, page);
    registers.gpr = {0x2010, 3, 0x55, 0x3020, 0x8800, 0xa040, 0x6008, 0x7008, 0xb008, 0xc008, 0xd008, 0xe008, 0xf008, 0, 1, 2};
    registers.rip = kCode;
    registers.cs.long_mode = true;
    registers.cs.selector = 0x10;
    registers.cs.type = 11;
    registers.gdt = {kGdt, 0xfff};
    registers.idt = {kIdt, 0xfff};
    registers.tr = {.base = kTss, .limit = 0x67, .selector = 0x40, .type = 11};
    registers.ldtr = {.base = kLdt, .limit = 0xff, .selector = 0x50, .type = 2};
    registers.cr0 = 0x8001'0033;
    registers.cr3 = tables.cr3();
    registers.cr4 = 0x620;
    registers.efer = 0xd01;
    registers.physical_bits = 48;
    registers.xcr0 = 7;
  }

  // Without paging: the address is the GPA.
  void SetProtectedMode(bool big) {
    registers.cr0 = 0x33;
    registers.cr4 = 0x600;
    registers.efer = 0;
    registers.cs.long_mode = false;
    registers.cs.big = registers.ss.big = big;
  }

  static std::vector<uint8_t> FromHex(const std::string& hex) {
    std::vector<uint8_t> bytes;
    for (size_t i = 0; i + 1 < hex.size(); i += 2) {
      bytes.push_back(static_cast<uint8_t>(std::stoi(hex.substr(i, 2), nullptr, 16)));
    }
    return bytes;
  }

  void PutCode(const std::string& hex) {
    const std::vector<uint8_t> bytes = FromHex(hex);
    static_cast<void>(memory->Write(Gpa(registers.rip), std::as_bytes(std::span(bytes))));
  }
  template <typename T>
  void Put(uint64_t gpa, T value) {
    static_cast<void>(memory->WriteObject(Gpa(gpa), value));
  }

  AccessDecoding Decode() { return DecodeAccess(registers, *memory, view, vectors); }

  std::string Run(const std::string& hex) {
    PutCode(hex);
    return Follow([this] { return Decode(); });
  }
  std::string RunEvent(const AccessEvent& event) {
    return Follow([&] { return DecodeEventAccess(registers, event, *memory, view); });
  }

  std::unique_ptr<GuestMemory> memory =
      *GuestMemory::Create(**GuestRam::Create({.bytes = kRamBytes}), *MemoryLayout::Create(kRamBytes));
  FakePageTables tables{*memory, Gpa(kTables)};
  AccessRegisters registers;
  FakeLevelView view;
  FakeVectorState vectors;
  bool refuse_tables = false;

 private:
  template <typename Decode>
  std::string Follow(Decode decode) {
    constexpr uint8_t kExecute = PageRights::kKernelExecute | PageRights::kUserExecute;
    view = FakeLevelView();
    for (uint64_t page = 0; page < kRamBytes; page += kPageBytes) {
      if (page / kPageBytes == registers.rip / kPageBytes || (page >= kTables && !refuse_tables)) continue;
      view.Set(page, PageRights::None());
    }
    std::string seen;
    // No instruction has as many accesses.
    for (int i = 0; i < 200; ++i) {
      const AccessDecoding decoding = decode();
      if (!seen.empty() && decoding.finding != AccessFinding::kNone) seen += ' ';
      switch (decoding.finding) {
        case AccessFinding::kNone: return seen;
        case AccessFinding::kGuestFault: return seen + "fault";
        case AccessFinding::kUnknown: return seen + "unknown";
        case AccessFinding::kViolation: break;
      }
      const AccessViolation& violation = decoding.violation;
      char text[32];
      std::snprintf(
          text, sizeof(text), "%c%llx", (violation.page_table ? "RWX" : "rwx")[static_cast<int>(violation.kind)],
          static_cast<unsigned long long>(violation.page_table ? violation.gpa.raw() : violation.gva.value_or(~uint64_t{0})));
      seen += text;
      uint8_t rights = view.Rights(violation.gpa.page()).bits() | PageRights::kRead;
      if (violation.kind == AccessKind::kWrite) rights |= PageRights::kWrite;
      if (violation.kind == AccessKind::kExecute) rights |= kExecute;
      view.Set(violation.gpa.raw(), PageRights(rights));
    }
    return seen + " ...";
  }
};

}  // namespace vmm

#endif  // VMM_VCPU_ACCESS_DECODER_ACCESS_TRACE_H_
