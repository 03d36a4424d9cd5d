package android.app;

public class AlertDialog extends Dialog {
    AlertDialog() {
        super(null);
    }

    public static class Builder {
        public Builder(android.content.Context context) { throw new RuntimeException("a stub"); }

        public Builder setMessage(CharSequence message) { throw new RuntimeException("a stub"); }

        public Builder setPositiveButton(int text, android.content.DialogInterface.OnClickListener listener) { throw new RuntimeException("a stub"); }

        public Builder setNegativeButton(int text, android.content.DialogInterface.OnClickListener listener) { throw new RuntimeException("a stub"); }

        public AlertDialog show() { throw new RuntimeException("a stub"); }
    }
}
