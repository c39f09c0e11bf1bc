// <linux/kvm.h> and its companions, checked: the one place that includes it, and that refuses headers too old for what we do.
#ifndef VMM_KVM_UAPI_H_
#define VMM_KVM_UAPI_H_

#include <asm/kvm_para.h>
#include <linux/kvm.h>

#if !defined(KVM_EXIT_MEMORY_FAULT) || !defined(KVM_SET_MEMORY_ATTRIBUTES) || !defined(KVM_CAP_X86_APIC_BUS_CYCLES_NS)
#error "Linux headers with the 6.12 UAPI are needed (memory attributes, KVM_EXIT_MEMORY_FAULT): run tools/setup"
#endif

#endif  // VMM_KVM_UAPI_H_
