// The two operators of ExecuTorch's LLM extension that our programs call. Its package builds them against torch only.
#pragma once

void register_llama_kernels();
