// The network device's process by itself.
#include "devices/virtio/net/net_device.h"

int main(int argc, char** argv) { return vmm::RunNetDevice(argc, argv); }
