// The PCI Express host bridge and its configuration space (MCFG says the same). The addresses are memory/layout.h's; the
// 64-bit window depends on the size of RAM, so the generated SSDT brings it. No I/O window: no device has I/O BARs.
DefinitionBlock ("", "SSDT", 2, "VMM", "VMMPCIE", 1)
{
    External (\_SB.PWIN, IntObj)    // where the 64-bit window begins
    External (\_SB.PWLN, IntObj)    // its bytes, 0: none

    Scope (\_SB)
    {
        Device (ECAM)
        {
            Name (_HID, EisaId ("PNP0C02"))
            Name (_UID, One)
            Name (_CRS, ResourceTemplate ()
            {
                Memory32Fixed (ReadWrite, 0xE0000000, 0x00100000)
            })
        }

        Device (PCI0)
        {
            Name (_HID, EisaId ("PNP0A08"))
            Name (_CID, EisaId ("PNP0A03"))
            Name (_UID, Zero)
            Name (_SEG, Zero)
            Name (_BBN, Zero)
            Name (_CCA, One)

            Name (WIN3, ResourceTemplate ()
            {
                WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode,
                    0x0000, 0x0000, 0x0000, 0x0000, 0x0001)
                DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,
                    0x00000000, 0xC0000000, 0xDFFFFFFF, 0x00000000, 0x20000000)
            })
            Name (WIN6, ResourceTemplate ()
            {
                QWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, Cacheable, ReadWrite,
                    0x0, 0x0, 0x0, 0x0, 0x0, , , W64)
            })

            Method (_CRS, 0, Serialized)
            {
                If (\_SB.PWLN == Zero)
                {
                    Return (WIN3)
                }
                CreateQWordField (WIN6, ^W64._MIN, WMIN)
                CreateQWordField (WIN6, ^W64._MAX, WMAX)
                CreateQWordField (WIN6, ^W64._LEN, WLEN)
                WMIN = \_SB.PWIN
                WLEN = \_SB.PWLN
                WMAX = \_SB.PWIN + (\_SB.PWLN - One)
                Return (ConcatenateResTemplate (WIN3, WIN6))
            }

            // The four pins of the 32 slots on the global interrupts 16 to 23, one further for each slot.
            Method (_PRT, 0, Serialized)
            {
                Local0 = Package (128) {}
                Local1 = Zero
                While (Local1 < 128)
                {
                    Local2 = Local1 >> 2
                    Local3 = Local1 & 0x03
                    Local4 = Package (4) { Zero, Zero, Zero, Zero }
                    Local4 [0] = (Local2 << 16) | 0xFFFF
                    Local4 [1] = Local3
                    Local4 [3] = 16 + ((Local2 + Local3) & 0x07)
                    Local0 [Local1] = Local4
                    Local1++
                }
                Return (Local0)
            }

            // No firmware holds any of PCI Express' features back: what is asked for is granted, of bits 0 to 4.
            Method (_OSC, 4, NotSerialized)
            {
                CreateDWordField (Arg3, Zero, CDW1)
                If (Arg0 == ToUUID ("33db4d5b-1ff7-401c-9657-7441c03dd766"))
                {
                    CreateDWordField (Arg3, 8, CDW3)
                    Local0 = CDW3 & 0x1F
                    If (Arg1 != One)
                    {
                        CDW1 |= 0x08    // unknown revision
                    }
                    If (CDW3 != Local0)
                    {
                        CDW1 |= 0x10    // some were masked out
                    }
                    CDW3 = Local0
                }
                Else
                {
                    CDW1 |= 0x04        // unknown UUID
                }
                Return (Arg3)
            }
        }
    }
}
