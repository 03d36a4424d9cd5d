package org.pytorch.executorch.extension.llm;

public class LlmModule implements java.io.Closeable {
    public LlmModule(String program, String tokenizer, float temperature) { throw new RuntimeException("a stub"); }

    public void load() { throw new RuntimeException("a stub"); }

    public void generate(String prompt, LlmGenerationConfig config, LlmCallback callback) { throw new RuntimeException("a stub"); }

    public void resetContext() { throw new RuntimeException("a stub"); }

    public void stop() { throw new RuntimeException("a stub"); }

    @Override
    public void close() { throw new RuntimeException("a stub"); }
}
