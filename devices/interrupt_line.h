// An edge-triggered interrupt input of the guest's interrupt controller.
//
// Threads  any; never blocks.
// Errors   none.
#ifndef VMM_DEVICES_INTERRUPT_LINE_H_
#define VMM_DEVICES_INTERRUPT_LINE_H_

namespace vmm {

class InterruptLine {
 public:
  virtual ~InterruptLine() = default;
  // One edge. Several before the guest takes the interrupt count as one.
  virtual void Pulse() noexcept = 0;
};

}  // namespace vmm

#endif  // VMM_DEVICES_INTERRUPT_LINE_H_
