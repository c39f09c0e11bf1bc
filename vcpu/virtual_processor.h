// One virtual processor: a thread that runs the guest and answers its exits.
//
// Shapes   one KVM vCPU now; one per VTL later, run by the same thread.
// Threads  Create, Start, Join: the owner's. RequestStop, exits: any. The rest is the VP thread's own.
// Trust    ports, addresses and data of an exit are the guest's: the buses check them.
// Errors   Create, Start: Status. What ends the run is told to MachineControl, once; a guest cannot end the process.
//
// The run loop neither allocates nor logs on its way from KVM_RUN to KVM_RUN, but for what ends the machine.
#ifndef VMM_VCPU_VIRTUAL_PROCESSOR_H_
#define VMM_VCPU_VIRTUAL_PROCESSOR_H_

#include <pthread.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "devices/io_bus.h"
#include "devices/machine_control.h"
#include "kvm/vcpu.h"

namespace vmm {

// Exits since the start, by what they asked for. Each is written by the VP thread, relaxed; read by any.
struct VpStats {
  std::atomic<uint64_t> pio{0};
  std::atomic<uint64_t> mmio{0};
  std::atomic<uint64_t> interrupted{0};
  std::atomic<uint64_t> other{0};
  // Accesses that no device answered.
  std::atomic<uint64_t> unclaimed{0};
};

class VirtualProcessor final {
 public:
  // What is borrowed outlives the VirtualProcessor.
  struct Environment {
    IoBus& ports;
    IoBus& memory;
    MachineControl& control;
  };
  // Installs, once a process, the do-nothing handler of the signal that brings a vCPU out of the guest (SIGRTMIN).
  static absl::StatusOr<std::unique_ptr<VirtualProcessor>> Create(std::unique_ptr<kvm::Vcpu> vcpu, Environment environment);
  VirtualProcessor(const VirtualProcessor&) = delete;
  VirtualProcessor& operator=(const VirtualProcessor&) = delete;
  // Stops and joins.
  ~VirtualProcessor();

  absl::Status Start();
  // The thread leaves the guest and ends. Of a string access that is under way the rest is left undone: the machine ends.
  void RequestStop() noexcept;
  void Join() noexcept;

  [[nodiscard]] kvm::Vcpu& vcpu() noexcept { return *vcpu_; }
  [[nodiscard]] const VpStats& stats() const noexcept { return stats_; }

 private:
  VirtualProcessor(std::unique_ptr<kvm::Vcpu> vcpu, Environment environment)
      : vcpu_(std::move(vcpu)), environment_(environment) {}
  static void* ThreadMain(void* self);
  void RunLoop() noexcept;
  // False: the machine ends.
  [[nodiscard]] bool HandleExit() noexcept;
  void HandlePio() noexcept;
  void HandleMmio() noexcept;
  void ReportFailure(absl::string_view what) noexcept;

  const std::unique_ptr<kvm::Vcpu> vcpu_;
  const Environment environment_;
  // release by RequestStop, acquire by the run loop.
  std::atomic<bool> stop_{false};
  VpStats stats_;
  pthread_t thread_{};
  bool started_ = false;  // owner's
};

}  // namespace vmm

#endif  // VMM_VCPU_VIRTUAL_PROCESSOR_H_
