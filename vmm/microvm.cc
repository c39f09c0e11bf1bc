#include "vmm/microvm.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <optional>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/errno_status.h"
#include "base/event_fd.h"
#include "base/log.h"
#include "base/notification.h"
#include "base/owned_fd.h"
#include "base/status_macros.h"
#include "devices/cpuid_leaf.h"
#include "devices/hyperv/cpuid/hv_cpuid.h"
#include "devices/hyperv/hv_cpuid_layout.h"
#include "devices/hyperv/partition/hypercall_page.h"
#include "devices/hyperv/test_device/hyperv_test_device.h"
#include "devices/io_bus.h"
#include "devices/platform/power/acpi_pm.h"
#include "devices/platform/power/debug_port.h"
#include "devices/platform/power/power_registers.h"
#include "devices/platform/power/pvpanic.h"
#include "devices/platform/rtc/rtc_process.h"
#include "devices/platform/serial_process.h"
#include "devices/virtio/balloon/balloon_device.h"
#include "devices/virtio/balloon/balloon_layout.h"
#include "devices/virtio/block/block_device.h"
#include "devices/virtio/console/console_device.h"
#include "devices/virtio/net/net_device.h"
#include "devices/virtio/rng/rng_device.h"
#include "devices/virtio/vsock/vsock_device.h"
#include "kvm/system.h"
#include "memory/guest_memory.h"
#include "memory/guest_ram.h"
#include "memory/guest_view.h"
#include "memory/layout.h"
#include "memory/protection_enforcer.h"
#include "memory/protection_map.h"
#include "memory/ram_mapping.h"
#include "memory/withdrawn_pages.h"
#include "sandbox/child_process.h"
#include "sandbox/confine.h"
#include "sandbox/jail_options.h"
#include "sandbox/spawner.h"
#include "vcpu/cpuid.h"
#include "vcpu/virtual_processor.h"
#include "vcpu/vp_requests.h"
#include "vmm/acpi/acpi_tables.h"
#include "vmm/boot/boot_layout.h"
#include "vmm/boot/load_kernel.h"
#include "vmm/boot/reset_stub.h"
#include "vmm/confine/confine_monitor.h"
#include "vmm/hyperv/hyperv_machine.h"
#include "vmm/hyperv/kvm_page_attributes.h"
#include "vmm/hyperv/protection_way.h"
#include "vmm/hyperv/vsm_machine.h"
#include "vmm/machine/boot_state.h"
#include "vmm/machine/machine_event_loop.h"
#include "vmm/machine/trapped_devices.h"
#include "vmm/test_machine/test_machine.h"
#include "vmm/virtio/balloon_control.h"
#include "vmm/virtio/virtio_machine.h"

namespace vmm {
namespace {

// Large enough for any BAR; the address space costs nothing.
constexpr uint64_t kPciWindow64Bytes = 64 * kGiB;

absl::StatusOr<OwnedFd> OpenImage(const std::string& path, absl::string_view what) {
  // O_NONBLOCK: what was a file when the configuration was checked may be a FIFO by now, which would wait for a writer.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  if (fd < 0) return ErrnoStatus(errno, absl::StrCat("open ", what, " '", path, "'"));
  return OwnedFd(fd);
}

absl::Status GiveMemory(kvm::Vm& vm, const GuestView& view) {
  uint32_t slot = 0;
  for (const RamMapping& mapping : view.UnsafeMappings()) {
    RETURN_IF_ERROR(vm.SetMemorySlot(slot++, mapping.range.start, mapping.host, mapping.range.bytes));
  }
  return absl::OkStatus();
}

ProtectionWish WishOf(VsmProtection protection) {
  switch (protection) {
    case VsmProtection::kPrivateAttribute: return ProtectionWish::kPrivateAttribute;
    case VsmProtection::kHostMapping: return ProtectionWish::kHostMapping;
    case VsmProtection::kAuto: break;
  }
  return ProtectionWish::kAuto;
}

class MicroVmImpl final : public MicroVm {
 public:
  MicroVmImpl(const VmConfig& config, Options options) : config_(config), options_(std::move(options)) {}
  ~MicroVmImpl() override;

  absl::Status Build();
  absl::Status Start() override;
  EndReport Wait() override;
  absl::Status ConfineCaller() override;
  void Stop() noexcept override;
  absl::Status SetBalloonTarget(uint64_t mib) override;
  MicroVmStats stats() const override;

 private:
  absl::Status CreateVtl0Vm();
  absl::Status BuildMemory();
  absl::Status BuildDevices();
  absl::Status BuildTestMachine();
  absl::Status BuildVirtio();
  absl::Status BuildHyperv();
  absl::Status BeginTrappedDevices();
  absl::Status LoadGuest(BootEntry& entry);
  absl::Status BuildProcessors(const BootEntry& entry);
  absl::Status Prepare();
  absl::Status StartThreads();
  void AddVsmStats(const VsmMachine& vsm, MicroVmStats& stats) const;
  void OnDeviceFailed(OnFailure policy, const std::string& message);
  [[nodiscard]] ConfinementNeeds confinement_needs() const {
    return {.locks_memory = config_.memory.lock,
            .foreign_device_ids = config_.sandbox.waive_namespaces || virtio_->has_foreign_ids()};
  }
  [[nodiscard]] Unenforceable unenforceable() const {
    return config_.hyperv.round_unenforceable ? Unenforceable::kRound : Unenforceable::kRefuse;
  }
  // On the event-loop thread, once.
  void End();

  const VmConfig config_;
  const Options options_;
  // No processor enters the guest before the thread that is confined last has been.
  const std::function<absl::Status()> confine_vp_ = [this]() -> absl::Status {
    RETURN_IF_ERROR(FilterVpThread(config_.monitor));
    loop_confined_.Wait();
    return loop_confined_status_;
  };

  // Members die from the last to the first: processors before the buses and devices that they call, those before the
  // loop thread that watches the device processes, all before the VM and the memory under it.
  std::unique_ptr<Lifecycle> lifecycle_;
  std::unique_ptr<GuestRam> ram_;
  std::unique_ptr<GuestMemory> memory_;
  std::unique_ptr<GuestView> view_;
  std::unique_ptr<GuestView> vtl1_view_;  // with vsm, as the three below
  std::unique_ptr<WithdrawnPages> withdrawn_;  // and with devices that have RAM
  std::unique_ptr<ProtectionMap> protection_map_;
  std::unique_ptr<ProtectionEnforcer> protections_;
  std::optional<MemoryLayout> layout_;
  std::unique_ptr<kvm::System> kvm_;
  std::unique_ptr<kvm::Vm> vm_;
  ProtectionWay protection_way_ = ProtectionWay::kHostMapping;  // with vsm
  std::optional<KvmPageAttributes> page_attributes_;  // where the way has them; called by the view until no overlay is left
  std::unique_ptr<kvm::Vm> vtl1_vm_;  // with vsm
  std::unique_ptr<MachineEventLoop> loop_;
  std::unique_ptr<AcpiPm> acpi_pm_;
  std::unique_ptr<Pvpanic> pvpanic_;
  std::unique_ptr<DebugPort> debug_port_;
  std::unique_ptr<TestMachine> test_machine_;
  std::unique_ptr<TrappedDevices> trapped_;  // both destroyed on the loop's thread
  std::unique_ptr<VirtioMachine> virtio_;
  IoBus ports_;
  IoBus mmio_;
  std::optional<VpRequests> requests_;
  std::vector<std::unique_ptr<VirtualProcessor>> processors_;
  // Before the processors, which it kicks; their threads have ended by then.
  std::unique_ptr<HypervMachine> hyperv_;
  std::unique_ptr<HypervTestDevice> hyperv_test_device_;
  absl::Status loop_confined_status_;  // before the notification, the loop's thread's
  Notification loop_confined_;
  bool prepared_ = false;  // owner's
  bool started_ = false;   // owner's
  Notification ended_;
};

absl::Status MicroVmImpl::Build() {
  ASSIGN_OR_RETURN(lifecycle_, Lifecycle::Create());
  ASSIGN_OR_RETURN(loop_, MachineEventLoop::Create());
  ASSIGN_OR_RETURN(kvm_, kvm::System::Open());
  RETURN_IF_ERROR(CreateVtl0Vm());
  RETURN_IF_ERROR(vm_->CreateIrqChip(kKvmIdentityMapBase, kKvmTssBase));
  RETURN_IF_ERROR(BuildDevices());
  RETURN_IF_ERROR(BeginTrappedDevices());
  BootEntry entry;
  absl::Status built = BuildMemory();
  if (built.ok() && config_.hyperv.enabled) built = BuildHyperv();
  if (built.ok() && config_.machine == MachineKind::kTest) built = BuildTestMachine();
  if (built.ok()) built = BuildVirtio();
  if (built.ok()) built = LoadGuest(entry);
  if (built.ok()) built = BuildProcessors(entry);
  // Waited for in any case: its task is still using this object.
  const absl::Status trapped = trapped_->Finish();
  return built.ok() ? trapped : built;
}

absl::Status MicroVmImpl::CreateVtl0Vm() {
  if (!config_.hyperv.vsm) {
    ASSIGN_OR_RETURN(vm_, kvm_->CreateVm());
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(RestrictedVm made, CreateRestrictedVm(*kvm_, WishOf(config_.hyperv.protection)));
  vm_ = std::move(made.vm);
  protection_way_ = made.way;
  if (protection_way_ == ProtectionWay::kPrivateAttribute) page_attributes_.emplace(*vm_);
  Log(config_.hyperv.round_unenforceable ? LogLevel::kWarning : LogLevel::kInfo, "vmm", Describe(protection_way_, unenforceable()));
  return absl::OkStatus();
}

absl::Status MicroVmImpl::BuildMemory() {
  ASSIGN_OR_RETURN(layout_, MemoryLayout::Create(config_.memory.bytes));
  GuestRamOptions options = config_.memory;
  for (const ReservedMemory& range : config_.reserved_memory) {
    const std::optional<uint64_t> offset = layout_->RamOffset(range.start, range.bytes);
    if (!offset.has_value()) {
      return absl::InvalidArgumentError(absl::StrCat("reserve ", range.bytes, " bytes at 0x", absl::Hex(range.start.raw()), ": not RAM"));
    }
    options.reserved.push_back({*offset, range.bytes});
  }
  options.withdrawable = config_.hyperv.vsm && HasVirtioDevices(config_);
  ASSIGN_OR_RETURN(ram_, GuestRam::Create(options));
  ASSIGN_OR_RETURN(memory_, GuestMemory::Create(*ram_, *layout_));
  const uint32_t overlay_pages = config_.hyperv.enabled ? HypervMachine::OverlayPages(config_.processors) : 0;
  constexpr unsigned kLevels = 2;
  uint32_t pieces = config_.hyperv.vsm ? GuestView::kMaxProtectedPieces : 0;
  if (options.withdrawable) pieces /= WithdrawnPages::MappingsForABorder(kLevels);
  ASSIGN_OR_RETURN(view_, GuestView::Create(*ram_, *layout_, overlay_pages, pieces, page_attributes_ ? &*page_attributes_ : nullptr));
  RETURN_IF_ERROR(GiveMemory(*vm_, *view_));
  if (!config_.hyperv.vsm) return absl::OkStatus();
  ASSIGN_OR_RETURN(vtl1_vm_, kvm_->CreateVm());
  ASSIGN_OR_RETURN(vtl1_view_, GuestView::Create(*ram_, *layout_, overlay_pages));
  RETURN_IF_ERROR(GiveMemory(*vtl1_vm_, *vtl1_view_));
  ASSIGN_OR_RETURN(protection_map_, ProtectionMap::Create(*layout_, kLevels));
  if (options.withdrawable) {
    ASSIGN_OR_RETURN(withdrawn_, WithdrawnPages::Create(*ram_, *layout_, *memory_, {view_.get(), vtl1_view_.get()}, pieces));
  }
  ASSIGN_OR_RETURN(protections_, ProtectionEnforcer::Create(*protection_map_, {view_.get()}, unenforceable(), withdrawn_.get()));
  return absl::OkStatus();
}

absl::Status MicroVmImpl::BuildDevices() {
  acpi_pm_ = std::make_unique<AcpiPm>(*lifecycle_);
  RETURN_IF_ERROR(ports_.Add(kAcpiSleepControlPort, kAcpiPmPorts, "ACPI registers", *acpi_pm_));
  if (config_.pvpanic) {
    pvpanic_ = std::make_unique<Pvpanic>(*lifecycle_);
    RETURN_IF_ERROR(ports_.Add(kPvpanicPort, 1, "pvpanic", *pvpanic_));
  }
  if (config_.debug_port) {
    debug_port_ = std::make_unique<DebugPort>();
    RETURN_IF_ERROR(ports_.Add(kDebugPort, 1, "debug port", *debug_port_));
  }
  return absl::OkStatus();
}

absl::Status MicroVmImpl::BuildTestMachine() {
  const FwCfg::Values values{.ram_bytes = config_.memory.bytes, .processors = static_cast<uint16_t>(config_.processors)};
  ASSIGN_OR_RETURN(test_machine_, TestMachine::Create({*vm_, *view_, *lifecycle_, ports_, mmio_}, values));
  return absl::OkStatus();
}

absl::Status MicroVmImpl::BuildVirtio() {
  const VirtioMachine::Environment environment{.vm = *vm_,
                                               .memory = *memory_,
                                               .ram = *ram_,
                                               .layout = *layout_,
                                               .loop = *loop_,
                                               .control = *lifecycle_,
                                               .ports = ports_,
                                               .mmio = mmio_,
                                               .confined = options_.confine,
                                               .interactive = options_.interactive};
  ASSIGN_OR_RETURN(virtio_, VirtioMachine::Create(environment, config_, options_.device_executable));
  return absl::OkStatus();
}

absl::Status MicroVmImpl::BeginTrappedDevices() {
  TrappedDevices::Environment environment{
      .loop = loop_->loop(),
      .vm = *vm_,
      .ports = ports_,
      .device_executable = options_.device_executable,
      .interactive = options_.interactive,
      .on_failed = [this](OnFailure policy, const std::string& message) { OnDeviceFailed(policy, message); },
      .on_quit = [this] { lifecycle_->RequestEnd(MachineEnd::kStopped, "stopped from the terminal (Ctrl-A x)"); }};
  ASSIGN_OR_RETURN(trapped_, TrappedDevices::Begin(config_, std::move(environment)));
  return absl::OkStatus();
}

void MicroVmImpl::OnDeviceFailed(OnFailure policy, const std::string& message) {
  if (policy == OnFailure::kStop) {
    lifecycle_->RequestEnd(MachineEnd::kDeviceFailed, message);
  } else {
    Log(LogLevel::kWarning, "vmm", absl::StrCat(message, "; the machine goes on without it"));
  }
}

absl::Status MicroVmImpl::LoadGuest(BootEntry& entry) {
  const AcpiConfig acpi{.processors = config_.processors,
                        .serial = config_.serial.enabled,
                        .pvpanic = config_.pvpanic,
                        .rtc = HasRtc(config_),
                        .pci = true,
                        .pci_window64 = layout_->high_mmio_start(),
                        .pci_window64_bytes = kPciWindow64Bytes};
  ASSIGN_OR_RETURN(const AcpiImage tables, BuildAcpi(acpi, kAcpiTablesBase));
  if (tables.bytes.size() > kAcpiTablesBytes || !memory_->Write(kAcpiTablesBase, tables.bytes)) {
    return absl::InternalError(absl::StrCat("write ACPI tables: ", tables.bytes.size(), " bytes do not fit"));
  }
  RETURN_IF_ERROR(WriteResetStub(*memory_));
  ASSIGN_OR_RETURN(const OwnedFd kernel, OpenImage(config_.boot.kernel, "kernel"));
  OwnedFd initramfs;
  if (!config_.boot.initramfs.empty()) {
    ASSIGN_OR_RETURN(initramfs, OpenImage(config_.boot.initramfs, "initramfs"));
  }
  // A kernel that took it for its own would have its devices refuse it.
  std::vector<ReservedRange> reserved;
  for (const ReservedMemory& range : config_.reserved_memory) reserved.push_back({range.start, range.bytes});
  const LoadOptions options{.initramfs_fd = initramfs.get(),
                            .initramfs_name = config_.boot.initramfs,
                            .command_line = config_.boot.command_line,
                            .acpi_rsdp = tables.rsdp,
                            .multiboot = config_.machine == MachineKind::kTest,
                            .reserved = std::move(reserved)};
  ASSIGN_OR_RETURN(const LoadedKernel loaded, LoadKernel(kernel.get(), config_.boot.kernel, *memory_, *layout_, options));
  entry = loaded.entry;
  // The guest runs by the view's page tables, and will touch all of this at once; ours are not needed any more.
  view_->Prefault(loaded.kernel, loaded.kernel_bytes);
  view_->Prefault(loaded.initramfs, loaded.initramfs_bytes);
  memory_->ForgetTouched();
  Log(LogLevel::kDebug, "vmm",
      absl::StrCat("loaded a ", ImageFormatName(loaded.format), " kernel of ", loaded.kernel_bytes,
                   " bytes at 0x", absl::Hex(loaded.kernel.raw()), ", initramfs of ", loaded.initramfs_bytes, " bytes"));
  return absl::OkStatus();
}

absl::Status MicroVmImpl::BuildHyperv() {
  requests_.emplace(config_.processors);
  const HvOffer offer = StandardHvOffer({.max_vps = config_.processors, .vsm = config_.hyperv.vsm});
  const auto backing = config_.hyperv.backing == HypervBacking::kOwn ? HypervMachine::Backing::kOwn : HypervMachine::Backing::kKernel;
  HypervMachine::Environment environment{*vm_, *view_, *memory_, *loop_, *lifecycle_, *requests_};
  if (config_.hyperv.vsm) environment.levels.push_back({*vtl1_vm_, *vtl1_view_});
  environment.protections = protections_.get();
  environment.vsm.mbec = config_.hyperv.claim_mbec;
  environment.vsm.accept_unenforceable = config_.hyperv.round_unenforceable;
  ASSIGN_OR_RETURN(hyperv_, HypervMachine::Create(environment, offer, backing));
  if (config_.machine != MachineKind::kTest) return absl::OkStatus();
  hyperv_test_device_ = std::make_unique<HypervTestDevice>(hyperv_->connections(), *hyperv_);
  return ports_.Add(kHypervTestDevicePort, kHypervTestDevicePorts, "Hyper-V test device", *hyperv_test_device_);
}

absl::Status MicroVmImpl::BuildProcessors(const BootEntry& entry) {
  ASSIGN_OR_RETURN(const auto supported, kvm_->SupportedCpuid());
  HvCpuid hyperv_leaves;
  if (hyperv_ != nullptr) hyperv_leaves = HvCpuidLeaves(hyperv_->offer());
  const CpuidOptions cpuid{.processors = config_.processors,
                           .tsc_deadline_timer = vm_->CheckExtension(KVM_CAP_TSC_DEADLINE_TIMER) > 0,
                           .hypervisor = hyperv_ != nullptr ? std::span<const CpuidLeaf>(hyperv_leaves)
                                                                   : std::span<const CpuidLeaf>()};
  for (uint32_t index = 0; index < config_.processors; ++index) {
    ASSIGN_OR_RETURN(auto vcpu, vm_->CreateVcpu(index));
    RETURN_IF_ERROR(vcpu->SetCpuid(GuestCpuid(supported, cpuid, index)));
    if (hyperv_ != nullptr) RETURN_IF_ERROR(hyperv_->PrepareVcpu(*vcpu));
    // Processor 0 is the bootstrap processor; KVM keeps the others waiting for the guest's INIT and SIPI.
    if (index == 0) RETURN_IF_ERROR(SetBootState(*vcpu, entry));
    VirtualProcessor::Environment environment{.ports = ports_, .memory = mmio_, .control = *lifecycle_};
    if (options_.confine) environment.confine = &confine_vp_;
    if (hyperv_ != nullptr) {
      environment.guest = &hyperv_->guest(index);
      environment.hypercall_port = kHvHypercallPort;
      environment.requests = &*requests_;
    }
    std::vector<VirtualProcessor::UpperLevel> above;
    if (hyperv_ != nullptr && hyperv_->vsm() != nullptr) {
      VsmMachine& vsm = *hyperv_->vsm();
      environment.scheduler = &vsm.scheduler(index);
      ASSIGN_OR_RETURN(auto vtl1, vtl1_vm_->CreateVcpu(index));
      RETURN_IF_ERROR(vtl1->SetCpuid(GuestCpuid(supported, cpuid, index)));
      RETURN_IF_ERROR(vsm.PrepareVcpu(*vtl1));
      above.push_back({std::move(vtl1), &vsm.guest(index, kVtl1)});
    }
    ASSIGN_OR_RETURN(auto processor, VirtualProcessor::Create(std::move(vcpu), environment, std::move(above)));
    processors_.push_back(std::move(processor));
  }
  return hyperv_ != nullptr ? hyperv_->Finish(processors_) : absl::OkStatus();
}

absl::Status MicroVmImpl::Start() {
  if (started_) return absl::FailedPreconditionError("start the machine: it has been started before");
  absl::Status status;
  RETURN_IF_ERROR(Prepare());
  TellWaivedConfinement(options_.confine ? config_.monitor : MonitorJailOptions{}, config_.sandbox);
  // On the loop's thread, as End is: a guest that ends the machine at once finds its processors all started or none.
  loop_->RunThere([&] {
    status = loop_->loop().Watch(lifecycle_->end_fd(), EPOLLIN, [this](uint32_t) { End(); });
    started_ = status.ok();
    if (status.ok()) status = StartThreads();
    loop_confined_status_ = status;
    loop_confined_.Notify();
    if (!status.ok()) lifecycle_->RequestEnd(MachineEnd::kInternalError, status.message());
  });
  RETURN_IF_ERROR(status);
  Log(LogLevel::kDebug, "vmm", absl::StrCat("started ", config_.processors, " virtual processor(s)"));
  return absl::OkStatus();
}

absl::Status MicroVmImpl::StartThreads() {
  if (options_.confine) RETURN_IF_ERROR(virtio_->Seal());
  // The processors' threads inherit it; each puts its own filter on, and no thread is started after this one's.
  if (options_.confine) RETURN_IF_ERROR(DropPrivileges(config_.monitor, confinement_needs()));
  for (const auto& processor : processors_) RETURN_IF_ERROR(processor->Start());
  return options_.confine ? FilterMonitorThread(config_.monitor) : absl::OkStatus();
}

// What only a thread without a filter can do.
absl::Status MicroVmImpl::Prepare() {
  if (!options_.confine || std::exchange(prepared_, true)) return absl::OkStatus();
  return PrepareConfinement(config_.monitor, confinement_needs());
}

absl::Status MicroVmImpl::ConfineCaller() {
  if (!options_.confine) return absl::FailedPreconditionError("confine the caller: the machine is not confined itself");
  RETURN_IF_ERROR(Prepare());
  if (!config_.monitor.waive_undumpable) RETURN_IF_ERROR(MakeUndumpable());
  RETURN_IF_ERROR(DropPrivileges(config_.monitor, confinement_needs()));
  return FilterMonitorThread(config_.monitor);
}

void MicroVmImpl::End() {
  loop_->loop().Unwatch(lifecycle_->end_fd());
  for (const auto& processor : processors_) processor->RequestStop();
  for (const auto& processor : processors_) processor->Join();
  virtio_->Shutdown();
  // What the guest has written is still to come out of its console.
  trapped_->Shutdown();
  const EndReport report = lifecycle_->report();
  if (options_.on_end) options_.on_end(report);
  ended_.Notify();
}

EndReport MicroVmImpl::Wait() {
  if (!started_) return {MachineEnd::kStopped, "never started"};
  ended_.Wait();
  return lifecycle_->report();
}

void MicroVmImpl::Stop() noexcept { lifecycle_->RequestEnd(MachineEnd::kStopped, "stopped on request"); }

void MicroVmImpl::AddVsmStats(const VsmMachine& vsm, MicroVmStats& stats) const {
  for (size_t index = 0; index < stats.processors.size(); ++index) {
    const VsmMachine::VpStats from = vsm.stats(static_cast<uint32_t>(index));
    MicroVmStats::Processor& to = stats.processors[index];
    to.vtl_calls = from.switches.calls;
    to.vtl_returns = from.switches.returns;
    to.vtl_preemptions = from.switches.preemptions;
    to.intercepts.push_back({.reads = from.intercepts.reads,
                             .writes = from.intercepts.writes,
                             .executes = from.intercepts.executes,
                             .emulated = from.intercepts.emulated,
                             .retried = from.intercepts.again,
                             .unknown = from.intercepts.unknown,
                             .named = from.intercepts.named,
                             .other_first = from.intercepts.other_first,
                             .unexplained = from.intercepts.unexplained,
                             .msrs = from.accesses.msrs,
                             .ports = from.accesses.ports});
  }
  const ProtectionEnforcer::Stats from = protections_->stats();
  stats.protections = {.way = static_cast<char>(protection_way_),
                       .rounds = config_.hyperv.round_unenforceable,
                       .protected_pages = from.protected_pages,
                       .withdrawn_pages = from.withdrawn_pages,
                       .written_pages = from.written_pages,
                       .set = from.pages,
                       .rounded = from.rounded,
                       .not_enforceable = from.not_enforceable,
                       .too_many_pieces = from.too_many_pieces,
                       .host_refused = from.host_refused,
                       .unenforced_intercepts = vsm.unenforced_intercepts()};
}

absl::Status MicroVmImpl::SetBalloonTarget(uint64_t mib) {
  if (virtio_->balloon() == nullptr) return absl::FailedPreconditionError("set the balloon's target: the machine has no balloon");
  return virtio_->balloon()->SetTarget(mib);
}

MicroVmStats MicroVmImpl::stats() const {
  MicroVmStats stats;
  if (const BalloonControl* const control = virtio_->balloon(); control != nullptr) {
    const BalloonControl::Stats from = control->stats();
    const auto said = [&](uint16_t tag) -> std::optional<uint64_t> {
      if ((from.last.stats_given >> tag & 1) == 0) return std::nullopt;
      return from.last.stats[tag];
    };
    stats.balloon = {.target_bytes = uint64_t{from.target_pages} * virtio_balloon::kPageBytes,
                     .held_bytes = uint64_t{from.last.actual_pages} * virtio_balloon::kPageBytes,
                     .discarded_bytes = from.last.discarded_bytes,
                     .refused_pages = from.last.refused_pages,
                     .guest_free_bytes = said(virtio_balloon::kStatMemFree),
                     .guest_total_bytes = said(virtio_balloon::kStatMemTotal),
                     .guest_available_bytes = said(virtio_balloon::kStatAvailable)};
  }
  for (const auto& processor : processors_) {
    const VpStats& from = processor->stats();
    stats.processors.push_back({.pio_exits = from.pio.load(std::memory_order_relaxed),
                                .mmio_exits = from.mmio.load(std::memory_order_relaxed),
                                .msr_exits = from.msr.load(std::memory_order_relaxed),
                                .hypercall_exits = from.hypercall.load(std::memory_order_relaxed),
                                .interrupted = from.interrupted.load(std::memory_order_relaxed),
                                .other_exits = from.other.load(std::memory_order_relaxed),
                                .unclaimed = from.unclaimed.load(std::memory_order_relaxed)});
  }
  for (const auto& device : virtio_->devices()) {
    const VirtioDevice::Stats from = device->stats();
    stats.devices.push_back({.name = device->name(), .restarts = from.restarts, .queue_faults = from.queue_faults});
  }
  if (hyperv_ == nullptr) return stats;
  const auto hyperv = hyperv_->stats();
  for (size_t index = 0; index < hyperv.size(); ++index) {
    const Synic::Stats& from = hyperv[index].synic;
    MicroVmStats::Processor& to = stats.processors[index];
    to.messages_written = from.messages.written;
    to.messages_refused = from.refused_full + from.refused_disabled;
    to.slots_busy = from.messages.busy;
    to.events = from.events;
    to.message_kicks = from.kicks;
  }
  if (hyperv_->vsm() != nullptr) AddVsmStats(*hyperv_->vsm(), stats);
  return stats;
}

MicroVmImpl::~MicroVmImpl() {
  if (started_) {
    Stop();
    ended_.Wait();
  }
  // A device process belongs to the thread that started it.
  if (loop_ != nullptr) {
    loop_->RunThere([this] {
      trapped_.reset();
      virtio_.reset();
    });
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<MicroVm>> MicroVm::Create(const VmConfig& config, Options options) {
  auto vm = std::make_unique<MicroVmImpl>(config, std::move(options));
  RETURN_IF_ERROR(vm->Build());
  return vm;
}

bool RunDeviceProcess(int argc, char** argv, int& exit_code) {
  if (argc < 3 || absl::string_view(argv[1]) != "device") return false;
  const absl::string_view kind = argv[2];
  if (kind == "serial") {
    exit_code = RunSerialDevice(argc, argv);
  } else if (kind == "rtc") {
    exit_code = RunRtcDevice(argc, argv);
  } else if (kind == "balloon") {
    exit_code = RunBalloonDevice(argc, argv);
  } else if (kind == "block") {
    exit_code = RunBlockDevice(argc, argv);
  } else if (kind == "console") {
    exit_code = RunConsoleDevice(argc, argv);
  } else if (kind == "net") {
    exit_code = RunNetDevice(argc, argv);
  } else if (kind == "rng") {
    exit_code = RunRngDevice(argc, argv);
  } else if (kind == "vsock") {
    exit_code = RunVsockDevice(argc, argv);
  } else if (kind == "spawner") {
    exit_code = RunSpawner();
  } else {
    return false;
  }
  return true;
}

}  // namespace vmm
