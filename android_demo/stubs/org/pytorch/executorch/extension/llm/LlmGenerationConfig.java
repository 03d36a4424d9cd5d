package org.pytorch.executorch.extension.llm;

public class LlmGenerationConfig {
    public static Builder create() { throw new RuntimeException("a stub"); }

    public static class Builder {
        public Builder echo(boolean echo) { throw new RuntimeException("a stub"); }

        public Builder seqLen(int tokens) { throw new RuntimeException("a stub"); }

        public Builder temperature(float temperature) { throw new RuntimeException("a stub"); }

        public LlmGenerationConfig build() { throw new RuntimeException("a stub"); }
    }
}
