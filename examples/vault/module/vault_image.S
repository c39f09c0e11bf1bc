/* The secure kernel, as the module carries it. */
	.section .rodata, "a"
	.globl vault_image, vault_image_end
	.balign 16
vault_image:
	.incbin VAULT_IMAGE
vault_image_end:
	.section .note.GNU-stack, "", @progbits
