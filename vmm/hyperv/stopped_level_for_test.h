// A virtual processor that has stopped at an instruction, over a fake KVM, with RAM, page tables, protections and a scheduler that are
// real, and the SynICs of VTL1 and VTL2: for tests of what is told of a level's accesses. Testonly.
//
// Shapes   16 MiB of RAM; 64-bit code at CPL 0. kCode, kData (two pages) and kDevice are linear, and are not where the memory is:
//          kCodePage, kDataPage and kNextPage are RAM, not one behind the other, kDeviceGpa is not. What is not named here is not mapped.
//          VTL1 is enabled; of VTL2 there are protections and a SynIC alone.
// Threads  one.
#ifndef VMM_VMM_HYPERV_STOPPED_LEVEL_FOR_TEST_H_
#define VMM_VMM_HYPERV_STOPPED_LEVEL_FOR_TEST_H_

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "devices/hyperv/hv_msr_layout.h"
#include "devices/hyperv/hv_status.h"
#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/hypercall/hypercall_layout.h"
#include "devices/hyperv/hypercall/vp_context_for_test.h"
#include "devices/hyperv/synic/hv_message_layout.h"
#include "devices/hyperv/synic/synic.h"
#include "devices/hyperv/synic/synic_for_test.h"
#include "devices/hyperv/vsm/tlb_locks.h"
#include "devices/hyperv/vsm/vsm_partition.h"
#include "kvm/fake_kvm.h"
#include "kvm/uapi.h"
#include "memory/gpa.h"
#include "memory/guest_memory.h"
#include "memory/guest_ram.h"
#include "memory/guest_view.h"
#include "memory/layout.h"
#include "memory/level_memory.h"
#include "memory/page_rights.h"
#include "memory/protection_enforcer.h"
#include "memory/protection_map.h"
#include "vcpu/fake_page_tables.h"
#include "vcpu/level_scheduler.h"
#include "vcpu/vp_requests.h"
#include "vmm/hyperv/kvm_vtl_processor.h"
#include "vmm/hyperv/level_registers.h"
#include "vmm/hyperv/quiet_level_for_test.h"
#include "vmm/hyperv/two_levels_for_test.h"
#include "vmm/hyperv/vtl_scheduler.h"

namespace vmm {

class StoppedLevelForTest final {
 public:
  static constexpr VpIndex kVp{2};
  static constexpr Vtl kVtl2{2};
  static constexpr uint64_t kBytes = 16 * kMiB;
  static constexpr uint64_t kCode = 0x40'0000, kData = 0x50'0000, kDevice = 0x60'0000;
  static constexpr Gpfn kCodePage{0x200}, kDataPage{0x300}, kNextPage{0x305};
  static constexpr Gpa kDeviceGpa{0xd000'0000};

  StoppedLevelForTest() {
    const MemoryLayout layout = MemoryLayout::Create(kBytes).value();
    const auto ram = GuestRam::Create({.bytes = kBytes}).value();
    memory = GuestMemory::Create(*ram, layout).value();
    for (auto& view : views) view = GuestView::Create(*ram, layout, /*overlay_pages=*/2, /*protected_pieces=*/64).value();
    map_ = ProtectionMap::Create(layout, kHvVtlCount).value();
    protections = ProtectionEnforcer::Create(*map_, {views[0].get(), views[1].get()}, Unenforceable::kRefuse).value();
    for (unsigned vtl = 0; vtl < level_memory.size(); ++vtl) {
      level_memory[vtl] = std::make_unique<LevelMemory>(*memory, *map_, protections->gate(), vtl);
    }
    tables.emplace(*memory, Gpa(0x10'0000));
    tables->Map(kCode, Gpa(kCodePage).raw());
    tables->Map(kData, Gpa(kDataPage).raw());
    tables->Map(kData + kPageBytes, Gpa(kNextPage).raw());
    tables->Map(kDevice, kDeviceGpa.raw());
    for (auto& synic : synics_) synic.Enable(Sint::Of<0>());
    vtl_processor.SetProcessor(*levels.processor);
    registers_.SetProcessor(*levels.processor);
    levels.state(1).msrs = {{0x277, 0}};  // PAT, that a context has
    if (partition_.Enable(kVtl0, 1, 0) != HvStatus::kSuccess ||
        scheduler.Enable(kVtl0, /*own_vp=*/true, 1, LongModeContext()) != HvStatus::kSuccess) {
      std::abort();
    }
    for (const Vtl vtl : {kVtl0, kVtl1}) {
      kvm::FakeVcpu& vcpu = levels.state(vtl.raw());
      kvm_sregs& sregs = vcpu.sregs;
      sregs.cs = {.base = 0, .limit = 0xffff'ffff, .selector = 0x10, .type = 0xb, .present = 1, .dpl = 0, .db = 0, .s = 1, .l = 1, .g = 1};
      sregs.ss = {.base = 0, .limit = 0xffff'ffff, .selector = 0x18, .type = 3, .present = 1, .dpl = 0, .db = 1, .s = 1, .l = 0, .g = 1};
      sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss;
      sregs.cr0 = 0x8001'0001;
      sregs.cr3 = tables->cr3();
      sregs.cr4 = 0x20;
      sregs.efer = 0xd00;
      vcpu.regs.rip = kCode;
      vcpu.regs.rflags = 2;
    }
    if (!levels.Fetch()) std::abort();
  }

  // What KVM has of the level, and tells when it stops again. RIP is at kCode until a test says otherwise.
  kvm_regs& regs(Vtl vtl = kVtl0) { return levels.state(vtl.raw()).regs; }
  kvm_sregs& sregs(Vtl vtl = kVtl0) { return levels.state(vtl.raw()).sregs; }
  kvm_vcpu_events& events(Vtl vtl = kVtl0) { return levels.state(vtl.raw()).events; }
  // Instructions, from kCode on.
  void Code(std::initializer_list<uint8_t> bytes) {
    static_cast<void>(memory->Write(Gpa(kCodePage), std::as_bytes(std::span(bytes.begin(), bytes.size()))));
  }
  void Fill(Gpa gpa, uint8_t value, uint64_t bytes) { static_cast<void>(memory->Fill(gpa, std::byte{value}, bytes)); }
  uint64_t Word(Gpa gpa) { return tables->Get(gpa); }

  void Protect(Vtl owner, Gpfn page, PageRights rights) {
    const std::vector<uint64_t> pages{page.raw()};
    if (protections->Protect(owner.raw(), rights, pages).status != ProtectStatus::kDone) std::abort();
  }
  static constexpr PageRights kReadExecute{PageRights::kRead | PageRights::kKernelExecute | PageRights::kUserExecute};

  // KVM_RUN of the level returns.
  void Exit(Vtl vtl = kVtl0) {
    levels.state(vtl.raw()).runs.push_back([](kvm_run&) { return 0; });
    static_cast<void>(levels.vcpu(vtl.raw()).Run());
  }
  // It fails on memory, and names the page, or not.
  void Fault(std::optional<Gpfn> named = std::nullopt, Vtl vtl = kVtl0) {
    levels.state(vtl.raw()).runs.push_back([named](kvm_run& run) {
      if (named.has_value()) {
        run.exit_reason = KVM_EXIT_MEMORY_FAULT;
        run.memory_fault = {};
        run.memory_fault.gpa = Gpa(*named).raw();
        run.memory_fault.size = kPageBytes;
      }
      return EFAULT;
    });
    static_cast<void>(levels.vcpu(vtl.raw()).Run());
  }

  // All messages of SINT0 of VTL1 or VTL2, as its guest takes them.
  std::vector<HvMessage> Take(Vtl level) {
    SynicForTest& synic = synics_.at(level.raw() - 1u);
    std::vector<HvMessage> messages;
    for (;;) {
      synic->RunPending();
      const auto read = synic.guest(Sint::Of<0>()).TakeMessage();
      if (!read.has_value()) return messages;
      messages.push_back(read->message);
      static_cast<void>(synic.Write(kHvMsrEom, 0));
    }
  }
  // VTL0 enters the guest next; else it waits for a level above.
  [[nodiscard]] bool Runs() { return scheduler.BeforeEntry() == LevelScheduler::Turn::kRun && scheduler.vsm().active() == kVtl0; }
  // VTL1 takes its interrupt and returns. False: it was not entered.
  [[nodiscard]] bool VisitVtl1() {
    vtl1.pending = true;
    const bool entered = scheduler.BeforeEntry() == LevelScheduler::Turn::kRun && scheduler.vsm().active() == kVtl1;
    constexpr VtlSwitchRequest kFastReturn{static_cast<uint64_t>(HypercallCode::kVtlReturn), 1};
    return entered && scheduler.Return(kFastReturn);
  }
  Synic* FindSynic(Vtl vtl) { return vtl == kVtl0 ? nullptr : &*synics_.at(vtl.raw() - 1u); }

  TwoLevelsForTest levels;
  std::unique_ptr<GuestMemory> memory;
  std::array<std::unique_ptr<GuestView>, 2> views;  // of VTL0 and VTL1, as the next
  std::array<std::unique_ptr<LevelMemory>, 2> level_memory;
  std::unique_ptr<ProtectionEnforcer> protections;
  std::optional<FakePageTables> tables;
  KvmVtlProcessor vtl_processor;
  QuietLevel vtl0{true}, vtl1{false}, vtl2{false};

 private:
  std::unique_ptr<ProtectionMap> map_;
  std::array<SynicForTest, 2> synics_;
  LevelRegisters registers_;
  VsmPartition partition_{VsmOffer{.maximum = kVtl2}};
  TlbLocks locks_{kVp.raw() + 1};
  VpRequests requests_{kVp.raw() + 1};

 public:
  VtlScheduler scheduler{kVp,
                         VtlScheduler::Environment{.processor = vtl_processor,
                                                   .partition = partition_,
                                                   .locks = locks_,
                                                   .registers = registers_,
                                                   .requests = requests_,
                                                   .levels = {&vtl0, &vtl1, &vtl2},
                                                   .kick_all = [] {}}};
};

}  // namespace vmm

#endif  // VMM_VMM_HYPERV_STOPPED_LEVEL_FOR_TEST_H_
