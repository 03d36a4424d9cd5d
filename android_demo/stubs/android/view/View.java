package android.view;

public class View {
    public static final int VISIBLE = 0;
    public static final int GONE = 8;

    public View(android.content.Context context) { throw new RuntimeException("a stub"); }

    public final <T extends View> T findViewById(int id) { throw new RuntimeException("a stub"); }

    public int getVisibility() { throw new RuntimeException("a stub"); }

    public void setVisibility(int visibility) { throw new RuntimeException("a stub"); }

    public boolean isEnabled() { throw new RuntimeException("a stub"); }

    public void setEnabled(boolean enabled) { throw new RuntimeException("a stub"); }

    public Object getTag() { throw new RuntimeException("a stub"); }

    public void setTag(Object tag) { throw new RuntimeException("a stub"); }

    public final int getBottom() { throw new RuntimeException("a stub"); }

    public final int getHeight() { throw new RuntimeException("a stub"); }

    public final int getScrollY() { throw new RuntimeException("a stub"); }

    public CharSequence getContentDescription() { throw new RuntimeException("a stub"); }

    public void setContentDescription(CharSequence description) { throw new RuntimeException("a stub"); }

    public void setBackgroundResource(int drawable) { throw new RuntimeException("a stub"); }

    public ViewGroup.LayoutParams getLayoutParams() { throw new RuntimeException("a stub"); }

    public void setLayoutParams(ViewGroup.LayoutParams params) { throw new RuntimeException("a stub"); }

    public void setOnClickListener(OnClickListener listener) { throw new RuntimeException("a stub"); }

    public boolean post(Runnable action) { throw new RuntimeException("a stub"); }

    public interface OnClickListener {
        void onClick(View view);
    }
}
