// The block device's process by itself.
#include "devices/virtio/block/block_device.h"

int main(int argc, char** argv) { return vmm::RunBlockDevice(argc, argv); }
